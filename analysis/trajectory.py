"""From the scored checkpoints of a run to tidy tables: how the scores moved, where they turned, which one is best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.training import X_COLUMNS
from unlearn_core.store import Run
from unlearn_core.vocabulary import METRICS, SUB_SCORES

COLUMNS = ("model", *X_COLUMNS, "metric", "value", "low", "high")
CHECKPOINT_COLUMNS = ("model", *X_COLUMNS, "forget", "retain", "task_aggregate", "mia_auc", "mia_score")
KEPT_SHARE = 0.9  # of the base's retain score, for the criterion "forget"
FEWEST = 3  # checkpoints among which a turning point can be told


def trajectory(run: Run) -> pd.DataFrame:
    """One row per scored checkpoint and metric, columns `COLUMNS`, ordered by model and step; step 0 is the base.

    `tokens`, `seconds` and a missing `epoch` are those of the training's log at that step; `low` and `high` are
    missing where a metric has no interval.
    """
    rows = [
        {"model": row["model"], "step": row["step"], "epoch": row["epoch"], "metric": metric, "value": value,
         **dict(zip(("low", "high"), row["intervals"].get(metric, (None, None)), strict=True))}
        for row in run.trajectory().get("rows", []) for metric, value in row["scores"].items()]
    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in ("tokens", "seconds")])
    numbers = dict.fromkeys(("step", "epoch", "value", "low", "high"), float)
    frame = frame.astype(numbers).merge(_logged(run, frame["model"].unique()), on=["model", "step"], how="left",
                                        suffixes=("", "_logged"))
    frame["epoch"] = frame["epoch"].fillna(frame["epoch_logged"])
    return frame.sort_values(["model", "step"], kind="stable", ignore_index=True)[list(COLUMNS)]


def _logged(run: Run, models: list[str]) -> pd.DataFrame:
    """The x columns at each step of the training's log, and 0 at step 0."""
    rows = [{"model": model, **{column: row.get(column) for column in X_COLUMNS}}
            for model in models for row in [dict.fromkeys(X_COLUMNS, 0), *run.steps(model)]]
    frame = pd.DataFrame(rows, columns=["model", *X_COLUMNS]).astype(dict.fromkeys(X_COLUMNS, float))
    return frame.drop_duplicates(["model", "step"])


def checkpoints(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per scored checkpoint, columns `CHECKPOINT_COLUMNS`, from `trajectory`.

    `forget` and `retain` are plain means of the six sub-scores of that split, missing unless all six were measured.
    """
    wide = frame.pivot_table(index=["model", "step"], columns="metric", values="value", aggfunc="first", sort=False)
    for split in ("forget", "retain"):
        keys = [metric.key for metric in SUB_SCORES if metric.key.startswith(split)]
        wide[split] = wide.reindex(columns=keys).mean(axis=1, skipna=False)
    places = frame[["model", *X_COLUMNS]].drop_duplicates(["model", "step"])
    wide = wide.reset_index().merge(places, on=["model", "step"])
    return wide.reindex(columns=list(CHECKPOINT_COLUMNS)).sort_values(["model", "step"], ignore_index=True)


def means(scores: dict[str, float]) -> dict[str, float] | None:
    """Mean forget and mean retain score of one model's scores; None unless all twelve were measured."""
    found = {split: [scores[m.key] for m in SUB_SCORES if m.key.startswith(split) and m.key in scores]
             for split in ("forget", "retain")}
    complete = all(len(values) == len(SUB_SCORES) // 2 for values in found.values())
    return {split: sum(values) / len(values) for split, values in found.items()} if complete else None


def reading(frame: pd.DataFrame, step: int) -> pd.DataFrame:
    """All scores of each model's checkpoint nearest to a step (the earlier of two): one row per metric, by its label.

    One column per model, named (model, step of that checkpoint). `frame` is `trajectory`.
    """
    columns = {}
    for model, own in frame.groupby("model"):
        known = np.sort(own["step"].unique())
        nearest = known[np.abs(known - step).argmin()]
        columns[model, int(nearest)] = own[own["step"] == nearest].set_index("metric")["value"]
    return pd.DataFrame(columns).reindex([key for key in METRICS if key in set(frame["metric"])]).rename(
        index={key: metric.label for key, metric in METRICS.items()})


def turning_point(frame: pd.DataFrame, model: str) -> int | None:
    """Step at which the mean retain score of a model is lowest: the end of the common decline.

    The first of equals; None where fewer than three checkpoints have all retain scores. If it is the last one, there
    was no recovery. `frame` is `checkpoints`.
    """
    own = frame[frame["model"] == model].dropna(subset=["retain"])
    return int(own.loc[own["retain"].idxmin(), "step"]) if len(own) >= FEWEST else None


def describe_turn(frame: pd.DataFrame, model: str) -> str:
    """`turning_point` in words."""
    own, step = frame[frame["model"] == model].dropna(subset=["retain"]), turning_point(frame, model)
    if step is None:
        return f"not told: it takes {FEWEST} scored checkpoints"
    lowest, last = own.loc[own["step"] == step, "retain"].iloc[0], own.iloc[-1]
    if step == last["step"]:
        return f"none: the mean retain score is lowest at the last checkpoint, step {step} ({lowest:.2f})"
    return f"step {step}: mean retain {lowest:.2f}, {last['retain']:.2f} at step {last['step']:.0f}"


# ---- the best checkpoint ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Criterion:
    """What "best" means. `score` gives a number per checkpoint, higher is better, missing where it cannot be told."""

    label: str
    score: Callable[[pd.DataFrame], pd.Series]


def _lowest_forget(own: pd.DataFrame) -> pd.Series:
    base = own.loc[own["step"] == 0, "retain"]
    kept = own["retain"] >= KEPT_SHARE * base.iloc[0] if len(base) else pd.Series(False, own.index)
    return (-own["forget"]).where(kept)


CRITERIA = {
    "balance": Criterion("highest mean of Task Aggregate and MIA score",
                         lambda own: own[["task_aggregate", "mia_score"]].mean(axis=1, skipna=False)),
    "task_aggregate": Criterion("highest Task Aggregate", lambda own: own["task_aggregate"]),
    "mia_auc": Criterion("MIA AUC nearest to its ideal 0.5", lambda own: -(own["mia_auc"] - 0.5).abs()),
    "forget": Criterion(f"lowest mean forget score with at least {KEPT_SHARE:.0%} of the base's mean retain score",
                        _lowest_forget),
}


def best_checkpoint(frame: pd.DataFrame, model: str, criterion: str) -> int | None:
    """Step of the best checkpoint of a model by one of `CRITERIA`: the first of equals, never the base itself.

    None where no checkpoint has the needed scores or meets the condition. `frame` is `checkpoints`.
    """
    own = frame[frame["model"] == model]
    score = CRITERIA[criterion].score(own)[own["step"] > 0].dropna()
    return None if score.empty else int(own.loc[score.idxmax(), "step"])


def best_checkpoints(frame: pd.DataFrame, criterion: str) -> pd.DataFrame:
    """The row of `checkpoints` of each model's best checkpoint; a model without one has no row."""
    best = {model: best_checkpoint(frame, model, criterion) for model in frame["model"].unique()}
    chosen = frame["step"] == frame["model"].map(best)
    return frame[chosen].reset_index(drop=True)
