"""Findings on whether the forgetting holds: probes that try to bring it back, and the verdict. Torch-free."""

from __future__ import annotations

import pandas as pd

from analysis import judging, probing
from analysis.findings_parts import Facts, Finding, commands, label, missing, said
from analysis.judged import FAILED, NOT_MEASURED, PASSED

PROBES = {"relearning": "Relearning", "quantisation": "Rounding the weights", "prompts": "Asking in other words"}


def robust(facts: Facts) -> Finding:
    """How much each probe brings back, of how many comparisons."""
    if facts.model is None:
        return missing("robust", "no model that would be handed out was scored", facts.evaluation())
    sentences, numbers, lacking = [], {}, []
    for probe, name in PROBES.items():
        rows, why = comparisons(facts, probe)
        if why:
            lacking.append((f"{name.lower()} ({why})", facts.command("probe", probe)))
            continue
        words, own = _probed(name, rows)
        sentences.append(words)
        numbers |= {f"{probe}_{key}": value for key, value in own.items()}
    todo = "\n".join(command for _, command in lacking)
    without = "; ".join(words for words, _ in lacking)
    if not sentences:
        return missing("robust", without, todo)
    return said("robust", " ".join([*sentences, *([f"Not measured: {without}."] if lacking else [])]), numbers, todo)


def comparisons(facts: Facts, probe: str) -> tuple[pd.DataFrame, str]:
    """(rows of `probing.recovery` on forget, without what was trained on retain; why there are none or "")."""
    frame = probing.table(facts.run, probe)
    if frame.empty:
        return frame, "not run"
    if not facts.is_current(facts.run.probe(probe)["about"], facts.model):
        return frame, "run on other weights"
    found = probing.recovery(frame, probe, facts.model)
    found = found[found["part"].isin(probing.ABOUT_FORGET[probe]) & (found["on"] != "retain")]
    return found, "" if len(found) else "nothing to compare"


def _probed(name: str, rows: pd.DataFrame) -> tuple[str, dict[str, float]]:
    back, control = rows[rows["came_back"]], next(iter(rows["control"]), "")
    beside = f"beside {label(control)}" if control else "without a control"
    numbers = {"comparisons": len(rows), "came_back": len(back)}
    if back.empty:
        numbers["possible"] = rows["gain_high"].max()
        return (f"{name} brings nothing back in {len(rows)} comparisons {beside}; a rise of up to "
                f"{numbers['possible']:.2f} is possible.", numbers)
    numbers["gain"] = probing.worst(back)["gain"]
    return (f"{name} brings something back in {len(back)} of {len(rows)} comparisons {beside}, the clearest by "
            f"{numbers['gain']:.2f}.", numbers)


def verdict(facts: Facts) -> Finding:
    """The headline of the verdict; its numbers count the gates that can veto."""
    found = facts.verdict
    if found.model is None:
        return missing("verdict", "no model that would be handed out was scored", facts.evaluation())
    states = [one.state for one in found.gates if one.gate.vetoes]
    numbers = {"failed": states.count(FAILED), "not_measured": states.count(NOT_MEASURED),
               "passed": states.count(PASSED), "gates": len(states), "queries": found.queries}
    counted = [words.partition(" ") for words in found.attacks if words[0].isdecimal()]  # "160 greedy answers"
    numbers |= {how.replace(" ", "_"): int(count) for count, _, how in counted}
    people = found.gate("leak")
    if people.high is not None:
        numbers |= {"people": people.n, "people_high": people.high}
    return said("verdict", found.headline, numbers, commands(judging.todo(found)))
