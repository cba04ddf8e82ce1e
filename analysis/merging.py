"""From the scored merges of a run to tidy tables and findings in words: methods, densities, path and surface.

The mean forget and retain scores have a cautious interval: from the mean of the six lower ends to the mean of the
upper ones, as wide as if all six scores erred together. The Task Aggregate, a harmonic mean, has none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import theme, trajectory
from unlearn_core import recipe as recipes
from unlearn_core.settings import Merge, Recipe
from unlearn_core.store import Run
from unlearn_core.trials import halves
from unlearn_core.vocabulary import METRICS, SUB_SCORES, UNLEARNED

EVALUATIONS = {"methods": 18, "path": 9, "surface": 25}  # what each part of `merge-sweep` scores
METHOD_KINDS = {"method": "As it comes", "method at one norm": "At one norm"}
MEASURED = ("task_aggregate", "mia_auc", "forget", "retain")
LABELS = {"task_aggregate": "Task Aggregate", "mia_auc": "MIA AUC", "forget": "Mean forget score",
          "retain": "Mean retain score"}
IDEALS = {"task_aggregate": "ideal 1", "mia_auc": "ideal 0.5", "forget": "ideal 0", "retain": "ideal 1"}
CELLS = tuple(metric.key for metric in SUB_SCORES)
COLUMNS = ("kind", "name", "method", "level", "density", "weight_1", "weight_2", "position", "norm_ratio", "cosine_1",
           "cosine_2", "task_aggregate", *(f"{name}{end}" for name in ("mia_auc", "forget", "retain")
                                           for end in ("", "_low", "_high")))
FEWEST = 3  # methods of which a correlation is told


def table(run: Run) -> pd.DataFrame:
    """One row per scored merge, columns `COLUMNS` and each of the twelve sub-scores with `_low` and `_high`.

    What a kind of row does not have, or was not measured, is missing.
    """
    rows = [_row(row) for row in run.merges().get("rows", [])]
    texts = ("kind", "name", "method", "level")
    cells = [f"{key}{end}" for key in CELLS for end in ("", "_low", "_high")]
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *cells])
    return frame.astype({name: float for name in frame if name not in texts})


def _row(row: dict) -> dict:
    scores, intervals = row["scores"], row["intervals"]
    about = {name: row.get(name) for name in ("kind", "name", "method", "level")}
    about |= {name: _number(row.get(name)) for name in ("density", "position", "norm_ratio")}
    mix = row.get("weights")
    about |= dict(zip(("weight_1", "weight_2"), map(_number, mix if isinstance(mix, list) else ()), strict=False))
    about |= {f"cosine_{number}": row["cosines"].get(model) for number, model in enumerate(UNLEARNED, start=1)}
    about |= {key: scores.get(key) for key in ("task_aggregate", "mia_auc", *CELLS)}
    ends = {key: intervals.get(key, (None, None)) for key in ("mia_auc", *CELLS)}
    about |= {f"{key}_{end}": value for key, both in ends.items() for end, value in zip(("low", "high"), both,
                                                                                         strict=True)}
    for end, values in (("", scores), ("_low", {key: low for key, (low, _) in intervals.items()}),
                        ("_high", {key: high for key, (_, high) in intervals.items()})):
        about |= {f"{split}{end}": mean for split, mean in (trajectory.means(values) or {}).items()}
    return about


def _number(value: object) -> float | None:
    """The store does not check what only some kinds of rows have."""
    return value if isinstance(value, int | float) else None


def of_kind(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of "density", "path" or "surface", rising along what varies there; each place once."""
    places = {"density": ["density"], "path": ["position"], "surface": ["weight_1", "weight_2"]}[kind]
    own = frame[frame["kind"] == kind].dropna(subset=places).drop_duplicates(places)
    return own.sort_values(places, kind="stable", ignore_index=True)


def reading(row: pd.Series) -> pd.DataFrame:
    """All scores of one merge: metric (its label), score, low, high; without what was not measured."""
    keys = [key for key in ("task_aggregate", "mia_auc", *CELLS) if pd.notna(row[key])]
    return pd.DataFrame([{"metric": METRICS[key].label, "score": row[key], "low": row.get(f"{key}_low"),
                          "high": row.get(f"{key}_high")} for key in keys], columns=["metric", "score", "low", "high"])


# ---- methods ---------------------------------------------------------------------------------------------------

def methods(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of every method, as they come and at one norm, the best Task Aggregate as it comes first; with `rank`
    (1: best, equals share the better one) within its kind."""
    own = frame[frame["kind"].isin(list(METHOD_KINDS))].drop_duplicates(["kind", "name"])
    own = own.assign(rank=own.groupby("kind")["task_aggregate"].rank(ascending=False, method="min"))
    best = own[own["kind"] == "method"].set_index("name")["task_aggregate"]
    order = own["name"].map(best).fillna(-1)
    return own.assign(order=order).sort_values(["order", "name", "kind"], ascending=[False, True, True], kind="stable",
                                               ignore_index=True).drop(columns="order")


def describe_methods(frame: pd.DataFrame) -> list[str]:
    """What the rows of `methods` say about scale and direction, as sentences."""
    scored = frame.dropna(subset=["task_aggregate", "norm_ratio"])
    raw, even = (scored[scored["kind"] == kind].set_index("name") for kind in METHOD_KINDS)
    names = [name for name in raw.index if name in even.index]
    if len(names) < FEWEST:
        return [f"Too few methods were scored both as they come and at one norm to compare them: {len(names)}."]
    raw, even = raw.loc[names], even.loc[names]
    return [_spread(raw, even), _scale(raw), _order(raw, even), _leak(even)]


def _spread(raw: pd.DataFrame, even: pd.DataFrame) -> str:
    ends = [f"{own['task_aggregate'].min():.3f} to {own['task_aggregate'].max():.3f}" for own in (raw, even)]
    return (f"Task Aggregate over {len(raw)} methods: {ends[0]} as they come, {ends[1]} once every update has the mean "
            "norm of its parents.")


def _scale(raw: pd.DataFrame) -> str:
    """Rank correlation, since the Task Aggregate is cut off at 0."""
    away = np.log(raw["norm_ratio"].where(raw["norm_ratio"] > 0)).abs()
    found = away.rank().corr(raw["task_aggregate"].rank())
    if np.isnan(found):
        return "Whether the score goes with the size of the update cannot be told: one of both does not vary."
    words = ("so the ranking goes largely with size" if found < -0.5 else
             "so what is far from the parents' size does better" if found > 0.5 else
             "so size alone says little about the ranking")
    return (f"As they come, Task Aggregate and distance from the parents' size, |log norm ratio|, have a rank "
            f"correlation of {found:.2f} (n = {len(raw)} methods), {words}.")


def _order(raw: pd.DataFrame, even: pd.DataFrame) -> str:
    best, then = raw["task_aggregate"].idxmax(), even["task_aggregate"].idxmax()
    place = int(even["task_aggregate"].rank(ascending=False, method="min")[best])
    agreement = raw["task_aggregate"].rank().corr(even["task_aggregate"].rank())
    change = (f"{best} is best both ways" if best == then else
              f"{best} is best as it comes and number {place} of {len(raw)} at one norm, where {then} is best")
    return change + ("." if np.isnan(agreement) else f"; the two rankings have a rank correlation of {agreement:.2f}.")


def _leak(even: pd.DataFrame) -> str:
    closest = (even["mia_auc"] - 0.5).abs().idxmin() if even["mia_auc"].notna().any() else None
    if closest is None:
        return "The attack was not scored."
    row = even.loc[closest]
    sure = "" if np.isnan(row["mia_auc_low"]) else f" ({row['mia_auc_low']:.2f} to {row['mia_auc_high']:.2f})"
    return (f"At one norm {closest} has the AUC nearest to 0.5: {row['mia_auc']:.3f}{sure}, with a Task Aggregate of "
            f"{row['task_aggregate']:.3f}.")


# ---- density ---------------------------------------------------------------------------------------------------

def same_as_best(frame: pd.DataFrame, metric: str) -> tuple[float, list[float]] | None:
    """(best density by `metric`, the unbroken range of measured densities around it that is not told apart from it).

    Told apart: by the Task Aggregate, where the intervals of one of the twelve sub-scores do not overlap; by another
    metric, where its own do not. Best: highest Task Aggregate or retain, lowest forget, AUC nearest to 0.5. None where
    nothing was measured. `frame` is `of_kind` "density".
    """
    own = frame.dropna(subset=[metric]).reset_index(drop=True)
    if own.empty:
        return None
    goodness = {"forget": -own["forget"], "mia_auc": -(own["mia_auc"] - 0.5).abs()}.get(metric, own[metric])
    best = int(goodness.idxmax())
    keys = CELLS if metric == "task_aggregate" else (metric,)
    low, high = (own[[f"{key}_{end}" for key in keys]].to_numpy() for end in ("low", "high"))
    alike = ~((low > high[best]) | (high < low[best])).any(axis=1)  # what has no interval tells nothing apart
    first, last = best, best
    while first > 0 and alike[first - 1]:
        first -= 1
    while last < len(own) - 1 and alike[last + 1]:
        last += 1
    return float(own["density"][best]), own["density"][first:last + 1].tolist()


def describe_density(frame: pd.DataFrame, metric: str) -> str:
    """Plateau or cliff in a sentence; `frame` is `of_kind` "density"."""
    found = same_as_best(frame, metric)
    if found is None:
        return f"{LABELS[metric]}: not measured."
    best, alike = found
    edges = alike[0], alike[-1]
    measured = frame.dropna(subset=[metric])["density"]
    value = frame.loc[frame["density"] == best, metric].iloc[0]
    start = f"{LABELS[metric]}: best at density {best:g} ({value:.3f})"
    if len(measured) == 1:
        return f"{start}, the only one that was measured."
    if len(alike) == len(measured):
        return (f"{start}; a plateau: none of the {len(measured)} densities from {measured.min():g} to "
                f"{measured.max():g} is told apart from it.")
    if len(alike) == 1:
        return f"{start}; a peak: already the next density is told apart from it."
    ends = [f"{side} {edge:g}" for side, edge, last in zip(("below", "above"), edges, (measured.min(), measured.max()),
                                                           strict=True) if edge != last]
    return f"{start}; a plateau from {edges[0]:g} to {edges[1]:g}, which ends {' and '.join(ends)}."


# ---- path and surface ------------------------------------------------------------------------------------------

def describe_path(frame: pd.DataFrame) -> str:
    """Where on the way from Model 1 over the merge to Model 2 the scores are best; `frame` is `of_kind` "path"."""
    parts = []
    for metric, words in (("task_aggregate", "highest Task Aggregate"), ("mia_auc", "AUC nearest to 0.5")):
        own = frame.dropna(subset=[metric])
        if len(own):
            good = own[metric] if metric == "task_aggregate" else -(own[metric] - 0.5).abs()
            row = own.loc[good.idxmax()]
            parts.append(f"{words} {row[metric]:.3f} at {row['position']:g}")
    return ", ".join(parts)


def describe_parents(frame: pd.DataFrame) -> str:
    """Both parents and the run's own merge on the same documents, from the ends of the path; "" without a path."""
    path = frame[(frame["kind"] == "path") & frame["position"].isin([0, 1, 2])].sort_values("position")
    parts = [f"{theme.short_label(row['name'])}: {row['task_aggregate']:.3f} and {row['mia_auc']:.3f}"
             for _, row in path.iterrows()]
    return f"For comparison, Task Aggregate and AUC. {'; '.join(parts)}." if parts else ""


# ---- the job ---------------------------------------------------------------------------------------------------

def settings(recipe: Recipe, choice: Merge) -> list[str]:
    """What `--set` is given to make this merge of the run's own, [] where they are the same."""
    return recipes.as_overrides(recipe, replace(recipe, merge=replace(
        recipe.merge, method=choice.method, level=choice.level, density=choice.density, weights=choice.weights)))


@dataclass(frozen=True)
class Sweep:
    """What `merge-sweep` is asked for: "density" (with these densities), "methods", "path", "surface"; on what."""

    parts: tuple[str, ...]
    densities: tuple[float, ...] = ()
    documents: int = 0
    seed: int = 0
    mmlu: int = -1
    half: str = halves.DEVELOPMENT

    @property
    def evaluations(self) -> int:
        """How many merges are scored at most."""
        return sum(len(self.densities) if part == "density" else EVALUATIONS[part] for part in self.parts)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows `merge-sweep RUN` on the command line."""
        grid = ("--density", ",".join(f"{density:g}" for density in self.densities))
        asked = [grid if part == "density" else (f"--{part}",) for part in self.parts]
        quiz = () if self.mmlu < 0 else ("--mmlu", str(self.mmlu))
        half = () if self.half == halves.DEVELOPMENT else ("--half", self.half)
        return (*(word for words in asked for word in words), "--documents", str(self.documents), "--seed",
                str(self.seed), *quiz, *half)
