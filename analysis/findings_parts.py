"""What findings are made of: the sentence with its numbers, what they read of a run, words they share. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from analysis import gates, theme
from analysis.gates import Verdict
from analysis.judged import Case
from unlearn_core import launching
from unlearn_core.vocabulary import SUB_SCORES, control

TITLES = {
    "knew": "What did the model know before?",
    "over": "How did Model 1, meant to forget too much, go wrong?",
    "under": "How did Model 2, meant to forget too little, go wrong?",
    "training": "When in the training did it forget?",
    "merge": "Where did the merge land?",
    "weights": "Where were the weights moved?",
    "conflicts": "Do the two models pull in opposite directions?",
    "forgotten": "What does the model still give away?",
    "missed": "What do the official scores miss?",
    "robust": "Can it be brought back?",
    "verdict": "What is the verdict?",
}
CELLS = {split: [metric.key for metric in SUB_SCORES if metric.key.startswith(split)] for split in ("forget", "retain")}
BRING = ["evaluate", "--model", "MODEL", "--base", "BASE", "--forget", "forget.jsonl", "--retain", "retain.jsonl"]
NOTHING_TRAINED = "this run brought its models, nothing was trained or merged here"


@dataclass(frozen=True)
class Finding:
    """What a run says to one question, in a few short sentences.

    `numbers`: what the text states, by name, unrounded; {} where it says why nothing was measured. `todo`: the commands
    that measure what is missing of it, one a line; "" where nothing is, or where no command can.
    """

    key: str
    title: str
    text: str
    numbers: dict[str, float] = field(default_factory=dict)
    todo: str = ""


class Span(NamedTuple):
    """A number with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}" + ("" if np.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]")


class Facts(Case):
    """A run as findings read it, each part once; `model` is the one that would be handed out."""

    @cached_property
    def verdict(self) -> Verdict:
        return gates.of_case(self)

    @cached_property
    def brought(self) -> bool:
        return bool(self.run.brought())

    @cached_property
    def finished(self) -> bool:
        """Whether the run had ended, even if it is being measured now."""
        status = self.run.status()
        return (status.get("before") or status)["state"] == "finished"

    @property
    def control(self) -> str | None:
        """The best scored model that never saw forget."""
        return control(self.scores)

    def score(self, model: str, key: str) -> Span | None:
        """One score of a model; None where it was not measured."""
        value = self.scores.get(model, {}).get(key)
        ends = self.intervals.get(model, {}).get(key, (np.nan, np.nan))
        return None if value is None else Span(value, *ends)

    def mean(self, model: str | None, keys: Sequence[str]) -> Span | None:
        """Mean of several scores with a cautious interval, from the mean of the lower to that of the upper ends; None
        unless all were measured."""
        found = [self.score(model, key) for key in keys] if model else [None]
        return None if None in found else Span(*np.mean(found, axis=0).tolist())

    def apart(self, first: str, second: str, keys: Sequence[str]) -> int:
        """How many of these scores are clearly higher for the first model: their intervals do not overlap."""
        pairs = [(self.score(first, key), self.score(second, key)) for key in keys]
        return sum(one is not None and two is not None and one.low > two.high for one, two in pairs)

    def command(self, *words: str) -> str:
        """A command of the engine on this run: the first word, the run, what follows."""
        return launching.command_line([words[0], self.run.id, *words[1:]])

    def evaluation(self) -> str:
        """The command that scores what is not scored yet."""
        if self.brought:
            return launching.command_line(BRING)
        if self.finished:
            return self.command("evaluate")
        return launching.command_line(["run", "--resume", self.run.id])


def said(key: str, text: str, numbers: dict[str, float], todo: str = "") -> Finding:
    return Finding(key, TITLES[key], text, {name: float(value) for name, value in numbers.items()}, todo)


def missing(key: str, why: str, todo: str = "") -> Finding:
    return Finding(key, TITLES[key], f"Not measured: {why}.", {}, todo)


def spans(found: Mapping[str, Span | None]) -> dict[str, float]:
    """Numbers of a finding: each measured span as its value, and its ends where it has them."""
    numbers = {}
    for name, span in found.items():
        if span is not None:
            numbers |= {name: span.value} | ({} if np.isnan(span.low) else
                                             {f"{name}_low": span.low, f"{name}_high": span.high})
    return numbers


def commands(todo: Iterable[str]) -> str:
    """What of it can be typed, each once, one a line."""
    return "\n".join(dict.fromkeys(line for line in todo if line.startswith("python ")))


def label(model: str) -> str:
    return theme.short_label(model)
