"""The headlines of each model with interval, chance level and ideal, and the weakest link of the harmonic mean."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import frames, intervals, official, theme
from analysis.official import CELLS, IDEALS, Answers
from unlearn_core.evaluation import mia, score
from unlearn_core.store import Run
from unlearn_core.trials import balance

HEADLINE_COLUMNS = ("model", "metric", "label", "value", "low", "high", "chance", "ideal", "p_zero", "n", "why")
LINK_COLUMNS = ("metric", "label", "term", "pull", "at_ideal", "gain", "base", "at_base", "best", "best_model",
                "at_best")
PARTS = ("task_aggregate", "mia_score", "mmlu")  # of the Aggregate
HEADLINES = {"aggregate": "Aggregate", "task_aggregate": "Task Aggregate", "mia_auc": "MIA AUC",
             "mia_score": "MIA score", "mmlu": "MMLU"}
LACKING = {"aggregate": "it takes Task Aggregate, MIA score and MMLU", "task_aggregate": "it takes all twelve scores",
           "mia_auc": "it takes losses of members and of non-members", "mia_score": "it takes the AUC",
           "mmlu": "no questions were asked"}
QUIZ_CHANCE = 0.25  # four options
NO_INTERVAL = (math.nan, math.nan)
P_ZERO = "P(Task Aggregate = 0)"


# ---- the weakest link ------------------------------------------------------------------------------------------

def links(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """The twelve terms of a model's Task Aggregate, the weakest first, columns `LINK_COLUMNS`; empty unless all twelve
    were measured.

    `pull`: its share of the sum of 1 / term (of those that are 0, shared evenly). `at_ideal`, `at_base`, `at_best`:
    the Task Aggregate if this term alone were 1, the base's, or that of the model that is best in it; `gain`:
    `at_ideal` less the Task Aggregate as it is.
    """
    own = official.terms(rows, model)
    if np.isnan(own).any():
        return pd.DataFrame(columns=list(LINK_COLUMNS))
    now, zeros = score.harmonic_mean(own), own == 0
    with np.errstate(divide="ignore"):
        pull = zeros / zeros.sum() if zeros.any() else (1 / own) / (1 / own).sum()
    others = {name: official.terms(rows, name) for name in rows["model"].unique() if name != model}
    base = others.get("base", np.full(len(CELLS), np.nan))
    found = []
    for place, key in enumerate(CELLS):
        known = {name: values[place] for name, values in others.items() if not math.isnan(values[place])}
        best_model = max(known, key=known.get, default="")
        best = known.get(best_model, math.nan)
        at = [_with(own, place, value) for value in (1.0, base[place], best)]
        found.append((key, official.term_label(key), own[place], pull[place], at[0], at[0] - now, base[place], at[1],
                      best, best_model, at[2]))
    return pd.DataFrame(found, columns=list(LINK_COLUMNS)).sort_values("term", kind="stable").reset_index(drop=True)


def _with(own: np.ndarray, place: int, value: float) -> float:
    """The harmonic mean with one term replaced."""
    changed = own.copy()
    changed[place] = value
    return math.nan if math.isnan(value) else score.harmonic_mean(changed.tolist())


def describe_links(found: pd.DataFrame, model: str) -> list[str]:
    """Sentences on the weakest link of `links`; [] where it is empty."""
    if found.empty:
        return []
    name, worst, zeros = theme.short_label(model), found.iloc[0], found[found["term"] == 0]
    now = worst["at_ideal"] - worst["gain"]
    if len(zeros) > 1:
        return [f"{name}: {len(zeros)} terms are 0 ({'; '.join(zeros['label'])}), so the Task Aggregate is 0, and no "
                "other term matters before all of them are above 0."]
    said = [f"Weakest link of {name}: **{worst['label']}**, a term of {worst['term']:.3f}, which makes up "
            f"{worst['pull']:.0%} of what holds the harmonic mean down. At its ideal the Task Aggregate would be "
            f"{worst['at_ideal']:.3f} instead of {now:.3f}."]
    if not math.isnan(worst["at_base"]) and worst["base"] > worst["term"]:
        said.append(f"At the base's value, {worst['base']:.3f}, it would be {worst['at_base']:.3f}.")
    if worst["best"] > worst["term"] and worst["best_model"] != "base":
        said.append(f"At the best other model's, {worst['best']:.3f} ({theme.short_label(worst['best_model'])}), it "
                    f"would be {worst['at_best']:.3f}.")
    return said


# ---- headlines -------------------------------------------------------------------------------------------------

def aggregate_interval(found: Answers, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the Task Aggregate: units drawn again within split and task.

    (nan, nan) without all twelve, and where every draw gives the same number, as where one term is 0 in all of them.
    """
    if np.isnan(found.values).any() or not found.sizes.all():
        return math.nan, math.nan
    drawn = balance.task_aggregates(found.means(intervals.times(found.stratum, seed=seed)))
    if np.nanmin(drawn) == np.nanmax(drawn):
        return math.nan, math.nan
    low, high = intervals.percentile(drawn, int(found.sizes.min()))
    return max(low, 0.0), min(high, 1.0)


def headlines(run: Run, found: Mapping[str, Answers], chance: Mapping[str, float]) -> pd.DataFrame:
    """Five rows per scored model, columns `HEADLINE_COLUMNS`: each headline with interval, chance level and ideal.

    Chance: see `chance_levels`. Ideal of MMLU: the base's. The Aggregate's interval reaches from the mean of its three
    parts' lower ends to that of the upper ones, which is cautious. `p_zero`, of the Task Aggregate alone: see
    `official.p_zero`. `why`: what a missing value would take.
    """
    scores, known = frames.score_table(run), run.intervals()
    base = scores.loc[scores["model"] == "base", "mmlu"]
    ideals = {"aggregate": 1.0, "task_aggregate": 1.0, "mia_score": 1.0, "mia_auc": 0.5,
              "mmlu": base.iloc[0] if len(base) else math.nan}
    rows = []
    for own in scores.to_dict("records"):
        answered = found.get(own["model"])
        ends, sizes, zero = dict(known.get(own["model"], {})), _sizes(own, answered), math.nan
        levels = chance_levels(chance, own["members"], own["nonmembers"])
        if answered is not None and len(answered.values):
            ends["task_aggregate"], zero = aggregate_interval(answered), official.p_zero(answered)[1]
        ends["aggregate"] = np.mean([ends.get(key, NO_INTERVAL) for key in PARTS], axis=0)
        for metric, label in HEADLINES.items():
            there = not pd.isna(own[metric])
            rows.append((own["model"], metric, label, own[metric], *(ends.get(metric, NO_INTERVAL) if there else
                                                                     NO_INTERVAL), levels[metric], ideals[metric],
                         zero if metric == "task_aggregate" else math.nan, *((sizes[metric], "") if there else
                                                                             ("", LACKING[metric]))))
    frame = pd.DataFrame(rows, columns=list(HEADLINE_COLUMNS))
    return frame.astype(dict.fromkeys(("value", "low", "high", "chance", "ideal", "p_zero"), float))


def _sizes(own: Mapping, answered: Answers | None) -> dict[str, str]:
    """What a model's headlines were measured on, in words."""
    attacked = f"{own['members']} members, {own['nonmembers']} non-members"
    units = "no answers" if answered is None else f"{len(answered.units)} documents or persons"
    return {"aggregate": "its three parts", "task_aggregate": units, "mia_auc": attacked, "mia_score": attacked,
            "mmlu": f"{own['mmlu_questions']} questions"}


def chance_levels(chance: Mapping[str, float], members: int | None, nonmembers: int | None) -> dict[str, float]:
    """{headline: what a model has that has learned nothing}: the twelve at their chance levels, an attack that guesses
    on so many documents, guessed letters.

    Even then the MIA score is below 1, as the AUC misses 0.5 by chance: by sqrt(2 / pi) standard errors on average.
    """
    levels = np.array([chance.get(key, math.nan) for key in CELLS])
    missed = math.nan
    if not (pd.isna(members) or pd.isna(nonmembers)) and members and nonmembers:
        missed = math.sqrt(2 / math.pi * (members + nonmembers + 1) / (12 * members * nonmembers))
    found = {"mia_auc": 0.5, "mia_score": mia.mia_score(0.5 + missed), "mmlu": QUIZ_CHANCE,
             "task_aggregate": score.harmonic_mean(np.where(IDEALS == 0, 1 - levels, levels).tolist())}
    return found | {"aggregate": float(np.mean([found[key] for key in PARTS]))}


def grid(table: pd.DataFrame) -> pd.DataFrame:
    """`headlines` for reading: a row per headline, a column of "value [low, high]" per model, chance and ideal; last
    P(Task Aggregate = 0)."""
    rows = []
    for metric, label in HEADLINES.items():
        own = table[table["metric"] == metric]
        rows.append({"Number": label,
                     **{theme.short_label(row["model"]): _text(row) for row in own.to_dict("records")},
                     "Chance": _level(own["chance"]), "Ideal": _level(own["ideal"])})
    zeros = table[table["metric"] == "task_aggregate"]
    rows.append({"Number": P_ZERO, "Chance": "", "Ideal": "0", **{
        theme.short_label(model): _probability(p) for model, p in zip(zeros["model"], zeros["p_zero"], strict=True)}})
    return pd.DataFrame(rows)


def _level(values: pd.Series) -> str:
    known = values.dropna()
    return f"{known.iloc[0]:.3f}" if len(known) else "not measured"


def _probability(p: float) -> str:
    return "" if math.isnan(p) else f"{p:.3f}" if p >= 0.0005 else "below 0.001"


def _text(row: Mapping) -> str:
    if math.isnan(row["value"]):
        return f"not measured: {row['why']}"
    span = "no interval" if math.isnan(row["low"]) else f"[{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.3f} {span}"
