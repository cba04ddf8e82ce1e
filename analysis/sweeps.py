"""A sweep as tables: scores run by run, means over seeds with intervals, and differences to the first configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from analysis import intervals
from unlearn_core.sweep.sweeps import FINISHED, METRIC_KEYS, NOT_BEGUN, Cell, Sweep
from unlearn_core.vocabulary import METRICS, MODELS

SCORE_COLUMNS = ("configuration", "seed", "run", "model", "metric", "label", "value")
SUMMARY_COLUMNS = ("configuration", "metric", "label", "mean", "low", "high", "n", "planned")
PAIRED_COLUMNS = ("configuration", "metric", "label", "difference", "low", "high", "n", "p", "told_apart")
STATE_COLUMNS = ("configuration", "seed", "state", "message", "run")
SAME_SPREAD = 1e-12  # differences that vary by less have no spread that a test could use


def states(cells: Iterable[Cell]) -> pd.DataFrame:
    """One row per planned run, columns `STATE_COLUMNS`; `message` says why it failed or where it is, `run` is "" before
    it is begun."""
    return pd.DataFrame([(cell.configuration.name, cell.seed, cell.state, cell.message, cell.run.id if cell.run else "")
                         for cell in cells], columns=list(STATE_COLUMNS))


def scores(cells: Iterable[Cell]) -> pd.DataFrame:
    """One row per finished run, model and metric of `vocabulary.METRICS` that was measured, columns `SCORE_COLUMNS`."""
    rows = [(cell.configuration.name, cell.seed, cell.run.id, model, key, METRICS[key].label, value)
            for cell in cells if cell.state == FINISHED for model, found in cell.run.scores().items()
            for key, value in found.items() if key in METRICS]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).astype({"value": float})


def models(table: pd.DataFrame) -> list[str]:
    """Models that some run of `scores` has, in the vocabulary's order, what would be handed out first."""
    found = set(table["model"])
    return [*(["merged"] if "merged" in found else []), *(name for name in MODELS if name in found - {"merged"})]


def summary(table: pd.DataFrame, sweep: Sweep, model: str) -> pd.DataFrame:
    """One row per configuration and metric, columns `SUMMARY_COLUMNS`: the mean over `n` of the `planned` seeds with
    its 95 % interval (Student's t), which is missing for one seed, as is everything for none."""
    rows = []
    for configuration, key, own in _each(table, sweep, model):
        mean, low, high = _spread(own.to_numpy())
        rows.append((configuration, key, METRICS[key].label, mean, low, high, len(own), len(sweep.seeds)))
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def paired(table: pd.DataFrame, sweep: Sweep, model: str) -> pd.DataFrame:
    """One row per configuration but the first and metric, columns `PAIRED_COLUMNS`: its score less that of the first
    configuration on the `n` seeds that both have, with a 95 % interval by Student's t.

    `p` is that of the paired t test, corrected by Holm for all differences of this table; missing for fewer than two
    seeds, and where all differences are the same. `told_apart`: p below 0.05.
    """
    first = sweep.configurations[0].name
    known = {(name, key): own for name, key, own in _each(table, sweep, model)}
    rows, p = [], []
    for (name, key), own in known.items():
        if name != first:
            difference = (own - known[first, key]).dropna().to_numpy()
            rows.append((name, key, METRICS[key].label, *_spread(difference), len(difference)))
            p.append(_p(difference))
    frame = pd.DataFrame(rows, columns=list(PAIRED_COLUMNS[:-2])).assign(p=intervals.holm(p) if p else [])
    return frame.assign(told_apart=frame["p"] < 1 - intervals.LEVEL)


def base(table: pd.DataFrame) -> dict[str, float]:
    """{metric: mean of the base over the seeds}; {} where configurations of one seed do not share their base."""
    own = table[table["model"] == "base"]
    if (own.groupby(["seed", "metric"])["value"].nunique() > 1).any():
        return {}
    return own.drop_duplicates(["seed", "metric"]).groupby("metric")["value"].mean().to_dict()


def axis(sweep: Sweep) -> tuple[str, dict[str, float]] | None:
    """(setting, {configuration: its value}) where configurations differ in the value of one number; None elsewhere."""
    keys = {key for own in sweep.configurations for key in own.point}
    if len(keys) != 1:
        return None
    key = keys.pop()
    if any(own.name != f"{key}={own.point.get(key)}" for own in sweep.configurations):  # variants beside it
        return None
    try:
        return key, {own.name: float(own.point[key]) for own in sweep.configurations}
    except ValueError:
        return None


def wide(frame: pd.DataFrame, value: str, sign: str = "") -> pd.DataFrame:
    """`summary` or `paired` as one row per configuration and one column of text per metric, such as "0.512 ± 0.031";
    a star after what is told apart. `value`: the column of the number."""
    marked = frame.assign(text=[_text(row, value, sign) for row in frame.to_dict("records")])
    table = marked.pivot(index="configuration", columns="label", values="text")
    return table.reindex(index=list(dict.fromkeys(frame["configuration"])),
                         columns=[METRICS[key].label for key in METRIC_KEYS]).reset_index()


def describe(table: pd.DataFrame) -> str:
    """What `paired` tells apart, in a sentence."""
    tested = int(table["p"].notna().sum())
    if not tested:
        return "No difference can be tested: it takes two seeds that both configurations have, and some spread."
    return (f"{int(table['told_apart'].sum())} of {tested} tested differences are told apart (★: p below 0.05 by a "
            f"paired t test, corrected by Holm for all {tested}).")


def unfinished(table: pd.DataFrame) -> pd.DataFrame:
    """The begun rows of `states` that are not finished."""
    return table[~table["state"].isin([FINISHED, NOT_BEGUN])]


def _each(table: pd.DataFrame, sweep: Sweep, model: str) -> Iterable[tuple[str, str, pd.Series]]:
    """(configuration, metric, values by seed) of one model."""
    own = table[table["model"] == model]
    for configuration in sweep.configurations:
        mine = own[own["configuration"] == configuration.name]
        for key in METRIC_KEYS:
            yield configuration.name, key, mine[mine["metric"] == key].set_index("seed")["value"]


def _spread(numbers: Sequence[float]) -> tuple[float, float, float]:
    """`intervals.mean`, missing where there is nothing to tell."""
    if not len(numbers):
        return math.nan, math.nan, math.nan
    mean, low, high = intervals.mean(list(numbers))
    return (mean, low, high) if len(numbers) > 1 else (mean, math.nan, math.nan)


def _p(numbers: np.ndarray) -> float:
    """Two-sided p of a t test against 0; NaN where the numbers have no spread."""
    if len(numbers) < 2 or np.ptp(numbers) < SAME_SPREAD:
        return math.nan
    error = numbers.std(ddof=1) / math.sqrt(len(numbers))
    return 2 * float(t.sf(abs(numbers.mean()) / error, len(numbers) - 1))


def _text(row: dict, value: str, sign: str) -> str | None:
    if math.isnan(row[value]):
        return None
    reach = f" ± {row['high'] - row[value]:.3f}" if row["n"] > 1 else " (one seed)"
    few = f", n = {row['n']}" if 1 < row["n"] < row.get("planned", row["n"]) else ""
    return f"{row[value]:{sign}.3f}{reach}{few}{' ★' if row.get('told_apart') else ''}"
