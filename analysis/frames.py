"""From a run folder to tidy tables; every table names its columns, and what was not measured is missing, never 0."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from analysis import theme, verdicts
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import HEADLINES, SUB_SCORES, TASK_LABELS, TASKS, Metric, shipped

RUN_COLUMNS = ("id", "title", "state", "tags", "archived", "created", "seed", "recipe", "aggregate", "task_aggregate",
               "mia_auc", "verdict", "mmlu", "mmlu_gate", "terms", "elapsed_s", "problem")
SCORE_COLUMNS = ("model", "label", "aggregate", "task_aggregate", "mia_score", "mia_auc", "mia_auc_low",
                 "mia_auc_high", "members", "nonmembers", "verdict", "mmlu", "mmlu_questions", "mmlu_gate")
NO_RESULTS = ("untrained", "retrained")  # never unlearned anything
LONGEST_NAME = 120  # characters of a title or tag
SUB_SCORE_COLUMNS = ("model", "metric", "label", "split", "kind", "task", "value", "low", "high", "ideal")


# ---- all runs --------------------------------------------------------------------------------------------------

def run_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per run, in the given order, columns `RUN_COLUMNS`.

    Scores, verdict and gate are those of the model that would be handed out: merged, or tested. `terms` are its twelve
    sub-scores as they enter the Task Aggregate (1 - score on forget), so that high is good: missing ones None, and no
    list where it has none. `elapsed_s` is the time from creation to the last status, pauses included. `problem` holds
    the message where the run's files cannot be read, else "".
    """
    frame = pd.DataFrame([_run_row(run) for run in runs], columns=list(RUN_COLUMNS))
    frame["created"] = pd.to_datetime(frame["created"], utc=True, format="ISO8601")
    numbers = ["aggregate", "task_aggregate", "mia_auc", "mmlu", "elapsed_s"]
    return frame.astype(dict.fromkeys(numbers, float) | {"archived": bool})


def _run_row(run: Run) -> dict:
    recipe = run.recipe()
    row = {"id": run.id, "seed": recipe.seed, "recipe": recipe.name, "title": "", "tags": [], "archived": False,
           "problem": ""}
    try:
        row["created"] = run.info()["created"]
        status, meta = run.status(), run.meta()
        return row | _shipped_scores(run) | {key: meta[key] for key in ("title", "tags", "archived")} | {
            "state": status["state"],
            "elapsed_s": _seconds_between(row["created"], status.get("ended") or status.get("updated"))}
    except InputError as error:  # damaged, or removed since it was listed
        return row | {"state": "damaged", "problem": str(error)}


def _shipped_scores(run: Run) -> dict:
    scores = run.scores()
    model = shipped(scores)
    own = scores.get(model, {})
    auc, interval = own.get("mia_auc"), run.intervals().get(model, {}).get("mia_auc", (None, None))
    terms = [_term(metric, own.get(metric.key)) for metric in SUB_SCORES]
    return {**{key: own.get(key) for key in ("aggregate", "task_aggregate", "mia_auc", "mmlu")},
            "verdict": verdicts.forgetting(auc, *interval),
            "mmlu_gate": verdicts.mmlu_gate(own.get("mmlu"), scores.get("base", {}).get("mmlu")),
            "terms": terms if any(term is not None for term in terms) else None}


def _term(metric: Metric, value: float | None) -> float | None:
    """A sub-score as it enters the Task Aggregate."""
    return value if value is None or metric.higher_is_better else 1 - value


def _seconds_between(start: str, end: str | None) -> float | None:
    return None if end is None else (pd.Timestamp(end) - pd.Timestamp(start)).total_seconds()


def filtered(table: pd.DataFrame, text: str = "", states: Sequence[str] = (), tags: Sequence[str] = (),
             archived: bool = False) -> pd.DataFrame:
    """Rows of `run_table` that have each word of `text` in id, title, recipe or tags, one of `states` and all `tags`.

    Nothing asked is nothing filtered, except that archived runs are shown only with `archived`.
    """
    keep = table.apply(lambda row: _holds(row, text.lower().split(), set(states), set(tags), archived), axis=1)
    return table[keep.astype(bool)].reset_index(drop=True) if len(table) else table


def _holds(row: pd.Series, words: list[str], states: set[str], tags: set[str], archived: bool) -> bool:
    said = " ".join([row["id"], row["title"], row["recipe"], *row["tags"]]).lower()
    return ((archived or not row["archived"]) and all(word in said for word in words)
            and (not states or row["state"] in states) and tags <= set(row["tags"]))


# What the run table can be sorted by: the key of each row, ascending.
SORTS = {
    "newest": lambda table: table["created"].max() - table["created"],
    "oldest": lambda table: table["created"],
    "Aggregate": lambda table: -table["aggregate"],
    "Task Aggregate": lambda table: -table["task_aggregate"],
    "MIA AUC nearest 0.5": lambda table: (table["mia_auc"] - 0.5).abs(),
    "MMLU": lambda table: -table["mmlu"],
    "title": lambda table: table["title"].str.lower(),
}


def ordered(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """`run_table` sorted by one of `SORTS`; the best first, runs without that number last."""
    order = SORTS[by](table).sort_values(kind="stable", na_position="last").index
    return table.loc[order].reset_index(drop=True)


def tidy(text: str) -> str:
    """A title or tag as it is kept: one line, at most `LONGEST_NAME` characters, printable."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:LONGEST_NAME].strip()


def tidy_tags(tags: Iterable[str]) -> list[str]:
    """Tags as they are kept: tidy, each once, none empty."""
    return list(dict.fromkeys(tag for tag in map(tidy, tags) if tag))


# ---- scores of one run -----------------------------------------------------------------------------------------

def score_table(run: Run) -> pd.DataFrame:
    """One row per scored model, in the vocabulary's order, columns `SCORE_COLUMNS`.

    `members` and `nonmembers` count the documents of the attack, `mmlu_questions` the questions asked. `verdict`
    and `mmlu_gate` are the words of `verdicts`.
    """
    scores, intervals = run.scores(), run.intervals()
    base_mmlu = scores.get("base", {}).get("mmlu")
    rows = []
    for model in _scored(run, scores):
        found = scores[model]
        low, high = intervals.get(model, {}).get("mia_auc", (None, None))
        member = [document["member"] for document in run.documents(model)]
        rows.append({
            "model": model, "label": theme.short_label(model),
            **{metric.key: found.get(metric.key) for metric in HEADLINES},
            "mia_auc_low": low, "mia_auc_high": high,
            "members": sum(member) if member else None, "nonmembers": len(member) - sum(member) if member else None,
            "verdict": verdicts.forgetting(found.get("mia_auc"), low, high),
            "mmlu_questions": len(run.mmlu(model)) or None,
            "mmlu_gate": (verdicts.REFERENCE if model in ("untrained", "base")
                          else verdicts.mmlu_gate(found.get("mmlu"), base_mmlu)),
        })
    frame = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    counts = dict.fromkeys(("members", "nonmembers", "mmlu_questions"), "Int64")
    numbers = dict.fromkeys([m.key for m in HEADLINES] + ["mia_auc_low", "mia_auc_high"], float)
    return frame.astype(counts | numbers)


def attack_size(scores: pd.DataFrame) -> str:
    """How many documents the attack compared, in words, from `score_table`."""
    counted = scores.dropna(subset=["members", "nonmembers"])
    if counted.empty:
        return "number of documents not recorded"
    sizes = counted[["members", "nonmembers"]].drop_duplicates().itertuples(index=False)
    return " or ".join(f"{row.members} members and {row.nonmembers} non-members" for row in sizes)


def quiz_size(scores: pd.DataFrame) -> str:
    """How many MMLU questions were asked, and chance, in words, from `score_table`."""
    counted = scores["mmlu_questions"].dropna().unique()
    return f"{' or '.join(map(str, sorted(counted)))} questions, chance 0.25" if len(counted) else "not measured"


def sub_scores(run: Run) -> pd.DataFrame:
    """Twelve rows per scored model, columns `SUB_SCORE_COLUMNS`; `kind` is regurgitation or knowledge.

    `value` is missing where the sub-score was not measured; `low` and `high` where it has no interval.
    """
    scores, intervals = run.scores(), run.intervals()
    rows = []
    for model in _scored(run, scores):
        for metric in SUB_SCORES:
            split, kind, number = metric.key.split("_")
            low, high = intervals.get(model, {}).get(metric.key, (None, None))
            rows.append({"model": model, "metric": metric.key, "label": metric.label, "split": split, "kind": kind,
                         "task": TASKS[int(number) - 1], "value": scores[model].get(metric.key),
                         "low": low, "high": high, "ideal": metric.ideal})
    frame = pd.DataFrame(rows, columns=list(SUB_SCORE_COLUMNS))
    return frame.astype(dict.fromkeys(("value", "low", "high", "ideal"), float))


def with_halves(scores: pd.DataFrame, sub_scores: pd.DataFrame) -> pd.DataFrame:
    """`score_table` with `forget_success` = 1 - mean of the six forget sub-scores and `retention` = mean of the six
    retain ones, by model; missing unless all six were measured."""
    means = sub_scores.groupby(["model", "split"])["value"].agg(lambda values: values.mean(skipna=False)).unstack()
    means = means.reindex(columns=["forget", "retain"])
    return scores.assign(forget_success=1 - scores["model"].map(means["forget"]).astype(float),
                         retention=scores["model"].map(means["retain"]).astype(float))


def on_pareto_line(points: pd.DataFrame) -> pd.Series:
    """Which rows of `with_halves` no other row beats in one of `forget_success` and `retention` without losing in the
    other. The models that were not unlearned from the base (`NO_RESULTS`) neither are on the line nor beat anyone."""
    known = points[~points["model"].isin(NO_RESULTS)].dropna(subset=["forget_success", "retention"])
    x, y = known["forget_success"].to_numpy(), known["retention"].to_numpy()
    beaten = ((x >= x[:, None]) & (y >= y[:, None]) & ((x > x[:, None]) | (y > y[:, None]))).any(axis=1)
    return pd.Series(points.index.isin(known.index[~beaten]), index=points.index)


def _scored(run: Run, scores: dict) -> list[str]:
    order = run.models()
    return sorted(scores, key=lambda model: order.index(model) if model in order else len(order))


def sub_score_name(task: str, kind: str) -> str:
    """Label of a row of the dot plot, e.g. ("Task2", "knowledge") -> "People with PII, knowledge"."""
    return f"{TASK_LABELS[task][0].upper()}{TASK_LABELS[task][1:]}, {kind}"
