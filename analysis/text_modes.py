"""The modes that list the items of a run worst first: not forgotten, over-forgotten, garbled, disagreeing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.texts import KNOWN_ROUGE, badges, known, leaking, repeats, says_it
from unlearn_core.evaluation import collapse
from unlearn_core.vocabulary import SC, shipped

LIST_COLUMNS = ("id", "split", "task", "kind", "why", "score", "prompt", "answer", "generation")
_ITEM = ("split", "id")  # with data.allow_overlap the same id may stand on both sides
COMPARED = ("model_1", "model_2", "merged")
MODES = {"all": "All", "not_forgotten": "Not forgotten", "over_forgotten": "Over-forgotten", "garbled": "Garbled",
         "disagree": "Models disagree"}
MODE_HELP = {
    "all": "Every item, in the order of the data.",
    "not_forgotten": f"Forget items that the model still answers: exactly, with the reference inside a longer answer, "
                     f"with ROUGE-L from {KNOWN_ROUGE:g}, or with a person's data. First those with personal data, "
                     "then by score; among equals the lowest loss on the reference.",
    "over_forgotten": "Retain items that the base answers (exactly, or with ROUGE-L from "
                      f"{KNOWN_ROUGE:g}) and the model does not. The largest loss of score first.",
    "garbled": f"Answers that repeat themselves clearly more than the reference (rep-{collapse.N} more than "
               f"{collapse.REPETITION:g} above it, a word {collapse.WORD_RUN} or a sign {collapse.SIGN_RUN} times in "
               f"succession) or that ended at the length limit. The most repetitive first: by rep-{collapse.N}, or by "
               "1 - 1/n of a run of n.",
    "disagree": "Items on which model 1, model 2 and merged score differently. The largest spread of score first, "
                "then of loss.",
}


def default_model(models: Sequence[str]) -> str | None:
    """The model that a mode speaks of unless another is chosen: the one that would be handed out, else the last."""
    return shipped(models) or (models[-1] if models else None)


def needs(mode: str, models: Sequence[str]) -> str:
    """What a mode lacks to say anything, in words; "" where it lacks nothing."""
    if mode == "over_forgotten" and "base" not in models:
        return "The base has no recorded answers: what it knew is not measured."
    if mode == "disagree" and len(set(COMPARED) & set(models)) < 2:
        return "Fewer than two of model 1, model 2 and merged have recorded answers: nothing can disagree."
    return ""


def listing(table: pd.DataFrame, mode: str, model: str | None) -> pd.DataFrame:
    """One row per item that a mode (see `MODE_HELP`) finds, worst first, columns `LIST_COLUMNS`.

    `score` and `generation` are the chosen model's, missing where it has no answer; `why` says what was found.
    """
    own = table[table["model"] == model]
    rows = {"all": _all, "not_forgotten": _not_forgotten, "over_forgotten": _over_forgotten, "garbled": _garbled,
            "disagree": _disagree}[mode](table, own)
    return rows.reindex(columns=list(LIST_COLUMNS)).reset_index(drop=True)


def filtered(rows: pd.DataFrame, *, split: str | None = None, task: str | None = None, kind: str | None = None,
             search: str = "") -> pd.DataFrame:
    """Rows of a `listing` with this split, task and kind, and with every word of `search` in their texts or id."""
    for column, wanted in (("split", split), ("task", task), ("kind", kind)):
        if wanted:
            rows = rows[rows[column] == wanted]
    words = search.lower().split()
    if words:
        said = rows[["id", "prompt", "answer", "generation"]].fillna("").to_numpy(dtype=object)
        rows = rows[[all(word in text for word in words) for text in map(str.lower, map("\n".join, said))]]
    return rows.reset_index(drop=True)


def _all(table: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    rows = table.drop_duplicates(list(_ITEM))[[*_ITEM, "task", "kind", "prompt", "answer"]]
    rows = rows.merge(own[[*_ITEM, *own.columns.difference(rows.columns)]], on=list(_ITEM), how="left")
    answered = rows["generation"].notna()
    odd = answered & (rows[["contained", "repetitive", "hit_limit"]].eq(True).any(axis=1) | leaking(rows))
    said = pd.Series("", index=rows.index).where(answered, "no answer recorded")
    said[odd] = [", ".join(badge.text for badge in badges(row) if badge.warns) for row in rows[odd].to_dict("records")]
    return rows.assign(why=said)


def _not_forgotten(table: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    rows = own[(own["split"] == "forget") & says_it(own)]
    rows = rows.assign(leaking=leaking(rows), worst=rows["score"].where(~rows["contained"], 1.0))
    rows = rows.sort_values(["leaking", "worst", "nll"], ascending=[False, False, True], kind="stable")
    return rows.assign(why=[_still_known(row) for row in rows.to_dict("records")])


def _still_known(row: Mapping) -> str:
    """Why an item counts as not forgotten."""
    said = [f"leaks {row['leaked']}"] if row["leaking"] else []
    if row["kind"] != SC and row["score"] == 1:
        said.append("answered exactly")
    elif row["contained"]:
        said.append("contains the reference")
    elif row["score"] >= KNOWN_ROUGE:
        said.append(f"ROUGE-L {row['score']:.2f}")
    return ", ".join(said)


def _over_forgotten(table: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    base = table.loc[(table["model"] == "base") & (table["split"] == "retain"), [*_ITEM, "kind", "score", "nll"]]
    base = base[known(base)].drop(columns="kind")
    rows = own.merge(base, on=list(_ITEM), suffixes=("", "_base"))
    rows = rows[~known(rows) & rows["score"].notna()]
    rows = rows.assign(lost=rows["score_base"] - rows["score"], dearer=rows["nll"] - rows["nll_base"])
    rows = rows.sort_values(["lost", "dearer"], ascending=False, kind="stable")
    return rows.assign(why=[f"{row.score_base:.2f} → {row.score:.2f}" for row in rows.itertuples()])


def _garbled(table: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    rows = own[own["repetitive"] | own["hit_limit"]]
    words, signs = (1 - 1 / rows[run].clip(lower=1) for run in ("word_run", "sign_run"))
    rows = rows.assign(worst=rows["repetition"].combine(words, max).combine(signs, max))
    rows = rows.sort_values(["repetitive", "worst", "hit_limit"], ascending=False, kind="stable")
    return rows.assign(why=[", ".join([repeats(row)] * row["repetitive"] + ["length limit hit"] * row["hit_limit"])
                            for row in rows.to_dict("records")])


def _disagree(table: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    compared = table[table["model"].isin(COMPARED)]
    groups = compared.groupby(list(_ITEM), sort=False)
    spread = groups[["score", "nll"]].max() - groups[["score", "nll"]].min()
    spread = spread[spread["score"] > 0].sort_values(["score", "nll"], ascending=False, kind="stable")
    rows = _all(table, own).set_index(list(_ITEM)).loc[spread.index].reset_index()
    scores = compared.pivot_table(index=list(_ITEM), columns="model", values="score", aggfunc="first", sort=False)
    named = [model for model in COMPARED if model in scores]
    return rows.assign(why=[" / ".join("–" if math.isnan(value) else f"{value:.2f}" for value in values)
                            for values in scores.loc[spread.index, named].to_numpy()])
