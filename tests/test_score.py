"""Scores from rows against hand arithmetic and the standard library."""

import math
import random
import statistics
import subprocess
import sys

import pytest

from unlearn_core.evaluation import score
from unlearn_core.vocabulary import METRICS, SUB_SCORES, TASKS

CELLS = {metric.key for metric in SUB_SCORES}


def answer(split, task, kind, value, document="d"):
    """A row as `Run.answers` has it."""
    scores = {"rouge_l": None, "exact_match": None} | {"rouge_l" if kind == "sc" else "exact_match": value}
    return {"id": f"{document}{kind}", "document": document, "split": split, "task": task, "kind": kind,
            "prompt": "Who?", "answer": "Ada", "generation": "Bob", **scores, "nll": 1.0, "answer_tokens": 1,
            "new_tokens": 1, "hit_limit": False}


def twelve_cells(forget=0.25, retain=0.75):
    """One row in each cell, forget and retain equal to these values."""
    return [answer(split, task, kind, value) for split, value in (("forget", forget), ("retain", retain))
            for task in TASKS for kind in ("sc", "qa")]


DOCUMENTS = [{"member": True, "nll": 1.0}, {"member": False, "nll": 2.0}, {"member": True, "nll": 3.0},
             {"member": False, "nll": 4.0}]  # 3 of 4 pairs
QUIZ = [{"correct": 0, "predicted": 0}, {"correct": 1, "predicted": 2}]


def test_a_full_evaluation_has_exactly_the_metrics_of_the_vocabulary():
    found = score.scores(twelve_cells(), DOCUMENTS, QUIZ)
    assert found.keys() == METRICS.keys()
    assert score.intervals(twelve_cells(), DOCUMENTS, QUIZ).keys() == CELLS | {"mia_auc", "mia_score", "mmlu"}
    assert found["task_aggregate"] == pytest.approx(0.75)  # all twelve terms are 0.75
    assert found["mia_auc"] == 3 / 4
    assert found["mia_score"] == 1 - 2 * 0.25
    assert found["mmlu"] == 1 / 2
    assert found["aggregate"] == pytest.approx((0.75 + 0.5 + 0.5) / 3)


def test_a_sub_score_is_the_raw_mean_over_the_items_of_its_cell():
    rows = [answer("forget", "Task2", "qa", v, d) for v, d in ((1, "a"), (0, "a"), (0, "b"))]
    assert {key: value for key, value in score.scores(rows, [], []).items() if key in CELLS} == {
        "forget_knowledge_2": 1 / 3}


def test_what_was_not_measured_is_absent_and_takes_the_aggregate_with_it():
    eleven = twelve_cells()[:-1]
    assert "task_aggregate" not in score.scores(eleven, DOCUMENTS, QUIZ)
    for answers, documents, quiz in ((eleven, DOCUMENTS, QUIZ), (twelve_cells(), DOCUMENTS[:1], QUIZ),
                                     (twelve_cells(), DOCUMENTS, [])):
        assert "aggregate" not in score.scores(answers, documents, quiz)
    assert score.scores([], [], []) == score.intervals([], [], []) == {}


def test_a_document_without_a_loss_is_left_out_of_the_attack():
    assert score.scores([], [*DOCUMENTS, {"member": True, "nll": None}], [])["mia_auc"] == 3 / 4


def test_with_one_loss_that_is_no_number_there_is_no_attack_and_all_else_stays():
    quiz = [{"correct": 1, "predicted": 1}]
    assert score.scores([], [*DOCUMENTS, {"member": True, "nll": None, "tokens": 9}], quiz) == {"mmlu": 1.0}
    assert score.intervals([], [*DOCUMENTS, {"member": True, "nll": None, "tokens": 9}], quiz).keys() == {"mmlu"}


def test_task_aggregate_takes_the_twelve_terms_in_the_official_order_and_sense():
    values = {metric.key: (number + 1) / 20 for number, metric in enumerate(SUB_SCORES)}
    assert [metric.key for metric in SUB_SCORES] == [
        f"{split}_{kind}_{task}" for split in ("forget", "retain") for task in (1, 2, 3)
        for kind in ("regurgitation", "knowledge")]
    terms = [1 - v if key.startswith("forget") else v for key, v in values.items()]
    assert score.task_aggregate(values) == pytest.approx(statistics.harmonic_mean(terms), rel=1e-15)


def test_the_harmonic_mean_is_the_standard_librarys():
    rng = random.Random(0)
    for _ in range(200):
        terms = [rng.random() for _ in range(12)]
        assert score.harmonic_mean(terms) == pytest.approx(statistics.harmonic_mean(terms), rel=1e-14)


def test_one_zero_among_twelve_terms_makes_the_harmonic_mean_zero():
    assert score.harmonic_mean([1.0] * 11 + [0.0]) == statistics.harmonic_mean([1.0] * 11 + [0.0]) == 0
    assert score.harmonic_mean([1.0] * 11 + [0.05]) == pytest.approx(12 / (11 + 20))


@pytest.mark.parametrize(("reference", "generation", "match"), [
    ("Paris", " paris\n", 1), ("Paris", "Paris.", 0), ("Paris", "Paris is the capital", 0), ("", " ", 1)])
def test_exact_match_ignores_outer_space_and_case_and_nothing_else(reference, generation, match):
    assert score.exact_match(reference, generation) == match


def test_the_gate_asks_for_three_quarters_of_the_bases_mmlu():
    assert score.passes_gate(0.375, 0.5) is True
    assert score.passes_gate(0.374, 0.5) is False
    assert score.passes_gate(None, 0.5) is score.passes_gate(0.4, None) is None


def test_the_verdict_is_the_side_of_the_target_on_which_the_whole_interval_lies():
    assert score.verdict((0.1, 0.4)) == "over-forgetting"
    assert score.verdict([0.6, 0.9]) == "under-forgetting"
    assert score.verdict((0.4, 0.6)) == score.verdict((0.4, 0.5)) == "balanced"
    assert score.verdict((0.4, 0.6), target=0.7) == "over-forgetting"
    assert score.verdict((0.3, 0.7)) == "undecided"  # 0.4 wide: lack of data, not balance
    assert score.verdict(None) == "not measured"


def test_the_interval_of_independent_hits_is_wilsons():
    # Wilson's interval of 3 hits in 10, from its quadratic equation
    n, p, z = 10, 0.3, 1.959963984540054
    root = math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(p + z * z / (2 * n) + sign * z * root) / (1 + z * z / n) for sign in (-1, 1)]
    assert score.mean_interval([1, 1, 1] + [0] * 7, range(10)) == pytest.approx(expected)


def test_five_equal_answers_per_person_count_as_one():
    people = [1, 1, 0, 0, 0, 1, 0, 0]
    repeated = [hit for hit in people for _ in range(5)]
    clusters = [person for person in range(8) for _ in range(5)]
    assert score.mean_interval(repeated, clusters) == pytest.approx(score.mean_interval(people, range(8)))


def test_zero_hits_of_eight_people_keep_the_upper_bound_of_eight_whatever_they_were_asked():
    low, high = score.mean_interval([0] * 40, [person for person in range(8) for _ in range(5)])
    assert low == 0
    assert high == pytest.approx(score.mean_interval([0] * 8, range(8))[1])
    assert 0.3 < high < 0.4


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_interval_covers_the_truth_95_times_in_100_when_answers_of_a_person_depend(share):
    rng = random.Random(3)

    def five_answers():
        # half of the people answer all five questions alike, the others each one independently
        alike = rng.random() < 0.5
        return [float(rng.random() < share)] * 5 if alike else [float(rng.random() < share) for _ in range(5)]

    covered = 0
    for _ in range(1000):
        hits = [hit for _ in range(40) for hit in five_answers()]
        low, high = score.mean_interval(hits, [person for person in range(40) for _ in range(5)])
        covered += low <= share <= high
    assert 930 <= covered <= 985


@pytest.mark.parametrize(("a", "b"), [(2, 6), (0.3, 0.7), (3, 27)])
def test_the_interval_of_rouge_scores_covers_their_mean_95_times_in_100(a, b):
    rng = random.Random(4)
    covered = 0
    for _ in range(1000):
        low, high = score.mean_interval([rng.betavariate(a, b) for _ in range(30)], range(30), score.PRIOR["sc"])
        covered += low <= a / (a + b) <= high
    assert covered >= 930


def test_rouge_scores_of_zero_everywhere_keep_the_upper_bound_of_their_number():
    z2 = 1.959963984540054**2
    assert score.mean_interval([0.0] * 50, range(50), score.PRIOR["sc"]) == pytest.approx((0, z2 / (50 + z2)))


def test_scores_and_the_attack_need_no_torch():
    code = ("import sys; import unlearn_core.evaluation.score, unlearn_core.evaluation.official; "
            "assert not {'torch', 'transformers', 'rouge_score', 'pandas'} & sys.modules.keys()")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_quiz_without_choices_has_no_accuracy():
    assert score.scores([], [], [{"correct": 1, "predicted": 1}, {"correct": 1, "predicted": -1}]) == {}
