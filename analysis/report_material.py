"""What the sections of a report read of a run, each part once. Torch-free."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import pandas as pd

from analysis import chance, evidence, findings, frames, headlines, official, theme, training
from analysis.findings import Finding
from analysis.findings_parts import Facts
from analysis.report_parts import Findings, Missing


class Material(Facts):
    """A run as a report reads it: what findings and a verdict read, and the tables that pages show of it."""

    @cached_property
    def evidence(self) -> dict:
        """`evidence.evidence`."""
        return evidence.of_case(self, self.verdict)

    @cached_property
    def findings(self) -> dict[str, Finding]:
        """`findings.findings`."""
        return {key: find(self) for key, find in findings.FOUND.items()}

    @cached_property
    def score_table(self) -> pd.DataFrame:
        """`frames.score_table`, as Overview shows it."""
        return frames.score_table(self.run)

    @cached_property
    def sub_scores(self) -> pd.DataFrame:
        """`frames.sub_scores`, as Overview shows it."""
        return frames.sub_scores(self.run)

    @cached_property
    def levels(self) -> dict[str, float]:
        """Chance levels of the twelve."""
        return chance.of_run(self.run)

    @cached_property
    def twelve(self) -> pd.DataFrame:
        """`official.table`, as Metrics shows it."""
        return official.table(self.run, self.answers, self.levels)

    @cached_property
    def headlines(self) -> pd.DataFrame:
        """`headlines.headlines`, as Metrics shows it."""
        return headlines.headlines(self.run, self.answers, self.levels)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """`training.steps`, as Loss shows it."""
        return training.steps(self.run)

    def said(self, *keys: str) -> Findings:
        """These findings, without their commands: a section has its own."""
        return Findings(tuple(replace(self.findings[key], todo="") for key in keys))

    @property
    def seed(self) -> str:
        """The run's seed, for a caption."""
        return f"Seed {self.run.recipe().seed}."

    @property
    def led(self) -> list[str]:
        """Models that were led through their texts token by token."""
        return [model for model in self.run.models() if (self.texts["model"] == model).any()]

    def untrained(self, what: str) -> Missing:
        """Why a run that brought its models has no such thing."""
        models = ", ".join(map(theme.short_label, self.run.brought()))
        return Missing(f"This run brought its models ({models}): nothing was trained or merged here, so there {what}.")
