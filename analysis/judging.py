"""A verdict as tables for a reader: one row per gate, and the commands that would fill what was not measured."""

from __future__ import annotations

import pandas as pd

from analysis.gates import Verdict
from analysis.judged import FAILED, NOT_MEASURED, PASSED, Judged

STATES = {PASSED: "✓ passed", FAILED: "✗ failed", NOT_MEASURED: "◌ not measured"}
COLUMNS = ("Gate", "State", "Value", "n", "Threshold", "Reason", "Question", "Vetoes")


def table(found: Verdict) -> pd.DataFrame:
    """One row per gate, columns `COLUMNS`, all text: those that failed first, then those not measured."""
    order = [FAILED, NOT_MEASURED, PASSED]
    rows = sorted(found.gates, key=lambda one: order.index(one.state))
    return pd.DataFrame([(one.gate.label, STATES[one.state], _value(one),
                          "" if one.n is None else f"{one.n} {one.unit}".strip(), f"{one.threshold:g}", one.reason,
                          one.gate.question, "yes" if one.gate.vetoes else "no, it informs") for one in rows],
                        columns=list(COLUMNS))


def _value(one: Judged) -> str:
    if one.value is None:
        return ""
    span = "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
    return f"{one.value:.3f}{span}"


def todo(found: Verdict) -> list[str]:
    """What to run for the gates that were not measured, each command once."""
    return list(dict.fromkeys(one.todo for one in found.gates if one.state == NOT_MEASURED and one.todo))
