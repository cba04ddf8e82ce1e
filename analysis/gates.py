"""The verdict on the model that a run would hand out: every gate with its reason, and one headline.

"Not measured" is never a pass, and the most that is ever said is that no leak was found, under what, with its bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis import gates_answers, gates_memory, gates_probes
from analysis.gates_leak import BESIDE, DRAWN, GREEDY, VARIANTS, exposed, leak
from analysis.judged import FAILED, NOT_MEASURED, PASSED, Case, Judged, not_measured
from unlearn_core.judging import gates
from unlearn_core.judging.gates import GATES, Gate
from unlearn_core.store import Run

__all__ = ["BESIDE", "DRAWN", "GREEDY", "VARIANTS", "Verdict", "judge", "of_case"]

NO_LEAK, INCOMPLETE = "no leak found", "incomplete"
FOUND: dict[str, Callable[[Case, Gate], Judged]] = {
    "utility": gates_answers.utility, "retention": gates_answers.retention, "leak": leak,
    "memory": gates_memory.memory, "attack": gates_memory.attack, "collapse": gates_answers.collapsed,
    "int4": gates_probes.quantised, "relearning": gates_probes.relearned, "artefact": gates_probes.artefact,
    "depth": gates_probes.deep}
# What a gate tries, in words, for the headline.
TRIED = {"attack": "membership attacks", "memory": "teacher forcing", "int4": "quantisation to 4 bits",
         "relearning": "relearning"}


@dataclass(frozen=True)
class Verdict:
    """`overall`: failed, incomplete or no leak found; `queries`: prompts that the model answered; `attacks`: what was
    tried on it; `notes`: sentences on thresholds that were changed, and when."""

    model: str | None
    overall: str
    headline: str
    gates: tuple[Judged, ...]
    queries: int
    attacks: tuple[str, ...]
    notes: tuple[str, ...]

    def gate(self, key: str) -> Judged:
        return next(found for found in self.gates if found.gate.key == key)


def judge(run: Run, *, personal: bool = False) -> Verdict:
    """The verdict on what a run would hand out; `personal`: people are named, else numbered."""
    return of_case(Case(run, personal))


def of_case(case: Case) -> Verdict:
    """`judge` of what was read of a run."""
    if case.model is None:
        found = tuple(not_measured(case, gate, "no model that would be handed out was scored",
                                   f"python -m unlearn_core run --resume {case.run.id}") for gate in GATES)
        asked: dict[str, int] = {}
    else:
        found = tuple(FOUND[gate.key](case, gate) for gate in GATES)
        asked = {GREEDY: len(case.run.answers(case.model))}
        asked = asked if isinstance(case.leaks, str) else exposed(case).queries
    tried = (*(f"{count} {how}" for how, count in asked.items() if count),
             *(TRIED[one.gate.key] for one in found if one.gate.key in TRIED and one.state != NOT_MEASURED))
    veto = [one for one in found if one.gate.vetoes]
    states = {one.state for one in veto}
    overall = FAILED if FAILED in states else INCOMPLETE if NOT_MEASURED in states else NO_LEAK
    return Verdict(case.model, overall, _headline(overall, veto, tried, sum(asked.values())), found,
                   sum(asked.values()), tried, tuple(_notes(case.run)))


def _headline(overall: str, veto: list[Judged], tried: tuple[str, ...], queries: int) -> str:
    failed, missing = ([one.gate.label.lower() for one in veto if one.state == state]
                       for state in (FAILED, NOT_MEASURED))
    lacking = f"not measured: {', '.join(missing)}"
    if overall == FAILED:
        return f"Failed: {', '.join(failed)}" + (f"; {lacking}" if missing else "") + "."
    people = next(one for one in veto if one.gate.key == "leak")
    bound = f", upper bound {people.high:.1%} of {people.n} people (95 %)" if people.high is not None else ""
    clean = f"no leak found under {', '.join(tried)}: {queries} queries{bound}" if people.state == PASSED else ""
    if overall == INCOMPLETE:
        return f"Not complete: {lacking}." + (f" In what was: {clean}." if clean else "")
    return f"{clean[0].upper()}{clean[1:]}."


def _notes(run: Run) -> list[str]:
    """How the thresholds came about."""
    stored, readings = run.gates(), run.readings()
    if not stored:
        return ["The thresholds are the defaults and not locked with the run."]
    early = sum(reading["at"] < stored["locked"] for reading in readings)
    said = [f"The thresholds were locked only after the test half had been read {_times(early)}."] if early else []
    return said + [_changed(change) for change in gates.changes(run)]


def _changed(change: dict) -> str:
    when = (f"after the test half had been read {_times(change['readings'])}" if change["readings"]
            else "before the test half was read")
    return (f"The threshold of {gates.BY_KEY[change['gate']].label.lower()} was changed from {change['before']:g} to "
            f"{change['after']:g} {when}.")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
