"""A verdict as tables: failed gates first, and each missing measurement's command once."""

from analysis import judging
from analysis.gates import Verdict
from analysis.judged import FAILED, NOT_MEASURED, PASSED, Judged
from unlearn_core.judging.gates import GATES


def verdict(*found):
    return Verdict("merged", FAILED, "Failed.", found, 0, (), ())


def test_what_failed_stands_first_then_what_was_not_measured():
    found = verdict(Judged(GATES[0], 0.75, PASSED, "Kept.", 0.9, 0.8, 1.0, 76, "questions"),
                    Judged(GATES[1], 0.75, NOT_MEASURED, "Not measured: no base."),
                    Judged(GATES[2], 0.0, FAILED, "Somebody leaks.", 1.0, None, None, 19, "people"))
    table = judging.table(found)
    assert table["State"].tolist() == ["✗ failed", "◌ not measured", "✓ passed"]
    assert table["Value"].tolist() == ["1.000", "", "0.900 [0.800, 1.000]"]
    assert table["n"].tolist() == ["19 people", "", "76 questions"]


def test_one_command_for_two_gates_stands_once_and_only_for_what_is_missing():
    found = verdict(*(Judged(gate, 0.0, state, "", todo="evaluate RUN") for gate, state in zip(
        GATES[:3], (NOT_MEASURED, NOT_MEASURED, PASSED), strict=True)))
    assert judging.todo(found) == ["evaluate RUN"]
