"""Up to five runs by their headlines: with intervals each, paired where the data are the same, a mean over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis import chance, comparison, differences, headlines, intervals, official
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.store import Run

PAIRED_COLUMNS = ("number", "run", "metric", "label", "first", "second", "difference", "low", "high", "units",
                  "told_apart")
PAIRED = ("task_aggregate", "mia_auc", "mmlu")
_SEEDS = ("seed", "name")  # settings in which runs over seeds may differ


def headlines_of(run: Run, model: str) -> pd.DataFrame:
    """`headlines.headlines` of one model of a run."""
    answers = run.answers(model)
    found = {model: official.answers(answers, f"answers of {model} in run {run.id}")} if answers else {}
    table = headlines.headlines(run, found, chance.of_run(run))
    return table[table["model"] == model].reset_index(drop=True)


def stacked(runs: Sequence[Run], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of `headlines_of` per run as one, with `number` and the runs' names in `run`."""
    return comparison.stacked([table.assign(run=name) for name, table in
                               zip(comparison.labels(runs), tables, strict=True)])


def paired_with_first(runs: Sequence[Run], model: str) -> tuple[pd.DataFrame, list[str]]:
    """(each other run's model less the first run's on the same items, columns `PAIRED_COLUMNS`; what cannot be paired
    and why). Above 0 the other run is better, but of the AUC, whose best is inside its range."""
    found, refused, names = [], [], comparison.labels(runs)
    first = differences.rows_of(runs[0], model)
    for number, (run, name) in enumerate(zip(runs[1:], names[1:], strict=True), start=2):
        try:
            table, reasons = differences.compare(first, differences.rows_of(run, model))
        except InputError as error:
            refused.append(f"Run {number}: {error}")
            continue
        found.append(table[table["metric"].isin(PAIRED)].assign(number=number, run=name))
        refused += [f"Run {number}: {reason}" for reason in reasons]
    frame = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(PAIRED_COLUMNS))
    return frame[list(PAIRED_COLUMNS)], refused


def differ_by_seed_only(runs: Sequence[Run]) -> bool:
    """Whether the recipes of at least two runs differ in nothing but their seed."""
    own = [run.recipe() for run in runs]
    return len({recipe.seed for recipe in own}) == len(own) > 1 and all(
        name in _SEEDS for other in own[1:] for name, _, _ in recipes.differing(own[0], other))


def describe_seeds(table: pd.DataFrame) -> list[str]:
    """Sentences on the means over seeds of `stacked`, with Student's t; each run is one observation."""
    said = []
    for metric in ("task_aggregate", "mia_auc", "mmlu", "aggregate"):
        own = table.loc[(table["metric"] == metric), "value"].dropna().tolist()
        if len(own) > 1:
            mean, low, high = intervals.mean(own)
            said.append(f"{headlines.HEADLINES[metric]}: mean over {len(own)} seeds {mean:.3f} [{low:.3f}, {high:.3f}],"
                        f" from {min(own):.3f} to {max(own):.3f}.")
    return said
