"""Gates on what probes found: quantisation, relearning, depth; and the form of what would be handed out."""

from __future__ import annotations

import dataclasses

import pandas as pd

from analysis import probing, theme
from analysis.judged import FAILED, NOT_MEASURED, PASSED, Case, Judged, not_measured
from unlearn_core.evaluation.score import WIDEST_BALANCED
from unlearn_core.judging.gates import Gate

INT4 = "int4"


def quantised(case: Case, gate: Gate) -> Judged:
    """Int4 against full precision and against a control's int4."""
    found, why = _recovery(case, "quantisation")
    found = found[found["setting"] == INT4]
    if why or found.empty:
        return not_measured(case, gate, why or "no measure at both precisions", _command(case, "quantisation"))
    return _judged(case, gate, found, _back(found, case.thresholds[gate.key]), "does not bring forget back")


def relearned(case: Case, gate: Gate) -> Judged:
    """After as many steps on a part of forget or on retain, the other part beside a control's.

    An untrained control has not learned the form of the answers either: what lies above it alone is no finding.
    """
    found, why = _recovery(case, "relearning")
    found = found[found["control"] != ""]
    if why or found.empty:
        return not_measured(case, gate, why or "no control that never saw forget was trained beside it",
                            _command(case, "relearning") if why else _control(case))
    back = _back(found, case.thresholds[gate.key])
    if len(back) and set(back["control"]) == {"untrained"}:
        return not_measured(case, gate, f"{_words(probing.worst(back))}; but that control has not learned the form of "
                            "the answers either, and a retrained one was not trained beside it", _control(case))
    said = _judged(case, gate, found, back, "does not bring forget back faster than the control")
    return dataclasses.replace(said, reason=f"{said.reason} {probing.OVERSTATES}")


def deep(case: Case, gate: Gate) -> Judged:
    """The unlearning depth score."""
    rows = [row for row in case.run.probe("depth").get("rows", [])
            if row["model"] == case.model and row["measure"] == "uds"]
    if not rows or rows[0]["value"] is None or not case.is_current(case.run.probe("depth")["about"], case.model):
        why = (rows[0].get("why") if rows and rows[0]["value"] is None else "measured on other weights" if rows
               else "this probe was not run")
        return not_measured(case, gate, why or "no score", _command(case, "depth"))
    if case.run.probe("depth")["about"].get("reference") == "untrained":
        return not_measured(case, gate, "a score against the untrained model, which lacks all that was learned, tells "
                            "nothing", _control(case))
    own, limit = rows[0], case.thresholds[gate.key]
    span = "" if own["low"] is None else f" [{own['low']:.2f}, {own['high']:.2f}]"
    return Judged(gate, limit, PASSED if own["value"] >= limit else FAILED,
                  f"Unlearning depth score {own['value']:.2f}{span}, at least {limit:g} is asked: 1 is as in a model "
                  "that never saw forget, 0 untouched inside.", own["value"], own["low"], own["high"], own["n"],
                  "documents")


def artefact(case: Case, gate: Gate) -> Judged:
    """What would be handed out: full weights, or an adapter that anybody can switch off."""
    limit, brought = case.thresholds[gate.key], case.run.brought().get(case.model)
    if brought is None:
        return Judged(gate, limit, PASSED, "It was measured with the update merged into the weights; hand out only "
                      f"those (python -m unlearn_core export {case.run.id} --out DIR), never the adapter beside its "
                      "base.", 0.0, n=1, unit="artefacts")
    if not brought["adapter"]:
        return Judged(gate, limit, PASSED, "It is a full model, without an adapter that could be switched off.", 0.0,
                      n=1, unit="artefacts")
    return Judged(gate, limit, PASSED if limit >= 1 else FAILED,
                  f"It is an adapter on {brought['model']}: to switch it off restores that model{_knows(case)}. Merge "
                  "it into the weights and bring those.", 1.0, n=1, unit="artefacts")


def _knows(case: Case) -> str:
    """What the base itself answers of forget, in words."""
    known = [value for key, value in case.scores.get("base", {}).items() if key.startswith("forget_")]
    return f", which has a mean forget score of {sum(known) / len(known):.2f}" if known else ""


# ---- rows of probes --------------------------------------------------------------------------------------------

def _recovery(case: Case, probe: str) -> tuple[pd.DataFrame, str]:
    """(`probing.recovery` of the model on forget, why there is none or "")."""
    frame = probing.table(case.run, probe)
    found = probing.recovery(frame, probe, case.model)
    found = found[found["part"].isin(probing.ABOUT_FORGET[probe])]
    if frame.empty:
        return found, "this probe was not run"
    if not case.is_current(case.run.probe(probe)["about"], case.model):
        return found, "this probe was run on other weights than the model has now"
    return found, "" if len(found) else "this probe left the model out"


def _back(found: pd.DataFrame, limit: float) -> pd.DataFrame:
    """What came back, by more than is allowed."""
    return found[found["came_back"] & (found["gain"] > limit)]


def _judged(case: Case, gate: Gate, found: pd.DataFrame, back: pd.DataFrame, good: str) -> Judged:
    row = probing.worst(back if len(back) else found)
    controls = [theme.short_label(name) for name in dict.fromkeys(found["control"]) if name]
    compared = f"{len(found)} comparisons, " + (f"control {', '.join(controls)}" if controls else "no control model")
    reason = f"{len(back)} measures come back: {_words(row)}" if len(back) else f"It {good}: at most {_words(row)}"
    wide = not row["gain_high"] - row["gain_low"] <= WIDEST_BALANCED  # or no interval at all
    state = FAILED if len(back) else NOT_MEASURED if wide else PASSED
    few = "; too few documents to say" if state == NOT_MEASURED else ""
    return Judged(gate, case.thresholds[gate.key], state, f"{reason} ({compared}){few}.",
                  *(float(row[key]) for key in ("gain", "gain_low", "gain_high")), int(row["n"]),
                  "documents or persons", "more documents" if few else "")


def _words(row: pd.Series) -> str:
    beside = "" if pd.isna(row["excess"]) else f", {row['excess']:+.3f} beside {theme.short_label(row['control'])}"
    where = probing.setting_label(row["setting"])
    return (f"{probing.MEASURES[row['measure']]} {row['value']:.3f} {'at int4' if where == INT4 else where}, "
            f"{row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}] from before{beside}")


def _command(case: Case, probe: str) -> str:
    return f"python -m unlearn_core probe {case.run.id} {probe}"


def _control(case: Case) -> str:
    """The command that makes the retrained control; the probe is to be run again after it."""
    return f"python -m unlearn_core train {case.run.id} --without forget"
