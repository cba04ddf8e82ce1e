"""What a verdict reads of a run, each part once, and what a gate makes of it."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis import attacks, collapse, leaks, official, texts, theme
from analysis.leaks import Leaks
from analysis.official import Answers
from unlearn_core import vocabulary
from unlearn_core.judging import gates
from unlearn_core.judging.gates import Gate
from unlearn_core.store import Run

PASSED, FAILED, NOT_MEASURED = STATES = ("passed", "failed", "not measured")
MOST_NAMED = 8  # people whom one sentence names


@dataclass(frozen=True)
class Judged:
    """What a gate found. `value` with its 95 % interval and `n` of `unit`; None where there is none. `reason` is one
    sentence; `todo` what to run where it was not measured; `documents`: of the people who are given away."""

    gate: Gate
    threshold: float
    state: str
    reason: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str = ""
    todo: str = ""
    documents: tuple[str, ...] = ()


class Case:
    """A run before its verdict. `model` is the one that would be handed out, None where none was scored."""

    def __init__(self, run: Run, personal: bool = False):
        self.run, self.personal = run, personal
        self.scores, self.intervals = run.scores(), run.intervals()
        self.model = vocabulary.shipped(self.scores)
        self.thresholds = gates.thresholds(run)

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """{model: its answers as numbers}."""
        return official.of_run(self.run)

    @cached_property
    def written(self) -> pd.DataFrame:
        """`collapse.shares` of all models."""
        return collapse.shares(collapse.outcomes(texts.answer_table(self.run)))

    @cached_property
    def texts(self) -> pd.DataFrame:
        """`attacks.texts` of all models."""
        return attacks.texts(self.run)

    @cached_property
    def leaks(self) -> Leaks | str:
        """What the answers give away, or why that is not known."""
        return leaks.read(self.run)

    @cached_property
    def keys(self) -> dict[str, str]:
        """sha256 of each adapter that the run has now."""
        return self.run.adapter_keys()

    def reference(self, found: Container[str]) -> str | None:
        """Of these models the one that still knows what must stay: the base, else a retrained one."""
        return next((name for name in ("base", "retrained") if name in found), None)

    def is_current(self, about: dict, model: str) -> bool:
        """Whether a probe was run on the adapter that the model has now, or on the model as it was brought; `about` is
        the probe's."""
        then = about.get("adapters", {}).get(model) or about.get("brought", {}).get(model)
        return then == (self.keys.get(model) or self.run.brought().get(model))

    # people

    @cached_property
    def people(self) -> list[str]:
        """Documents of the people of forget, in the order of the answers."""
        if isinstance(self.leaks, str):
            return []
        own = self.leaks.people
        return list(dict.fromkeys(own.loc[own["split"] == "forget", "document"]))

    def label(self, document: str) -> str:
        """A person of forget: by name where that was asked for, else by number, as person 3."""
        name = self.leaks.persons[document].name
        return name if self.personal and name else f"person {self.people.index(document) + 1}"


def not_measured(case: Case, gate: Gate, why: str, todo: str = "") -> Judged:
    return Judged(gate, case.thresholds[gate.key], NOT_MEASURED, f"Not measured: {why}.", todo=todo)


def not_answered(case: Case, gate: Gate, why: str, todo: str) -> Judged:
    """`not_measured`, for want of answers; a recording may have been made without them."""
    if case.run.lacks_texts():
        return not_measured(case, gate, "it follows from answers, which are not part of the recording")
    return not_measured(case, gate, why, todo)


def listed(names: list[str], most: int = MOST_NAMED) -> str:
    """The first names and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def names(models: Iterable[str]) -> str:
    return ", ".join(map(theme.short_label, models))


def evaluate(run: Run) -> str:
    """The command that measures the models of a run anew."""
    return f"python -m unlearn_core evaluate {run.id}"
