"""From what a model holds of each text (`Run.memory`) to attacks: any score, any member set, any threshold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from analysis import intervals
from unlearn_core.evaluation import mia
from unlearn_core.store import Run
from unlearn_core.vocabulary import DOCUMENT, QA, SC, TASK_LABELS, TASKS

ATTACKS = {"nll": "Loss", "zlib": "zlib", "min_k": "Min-K%", "min_k_plus": "Min-K%++", "reference": "Reference"}
HELP = {"nll": "mean loss of the tokens: the official attack",
        "zlib": "total loss over the bytes of the compressed text",
        "min_k": "mean loss of the least likely 20 % of the tokens",
        "min_k_plus": "the same, each loss as a z-score against the vocabulary at its position",
        "reference": "loss less that of a model that never saw the text"}
KINDS = {DOCUMENT: "Whole documents", SC: "Continuations", QA: "Answers to questions"}
MEMBERS = ("forget", "retain")
RATES = {"1": 0.01, "5": 0.05}  # false positives, by the name that a column ends in
TEXT_COLUMNS = ("model", "id", "document", "split", "task", "kind", "tokens", "nll", "min_k", "min_k_plus", "zlib",
                "entropy", "exact_memorisation", "extraction_strength", "reference")
NUMBERS = ("auc", "low", "high", "two_sided", "two_sided_low", "two_sided_high", "p", "tpr_1", "tpr_5", "over_1",
           "over_5")
TABLE_COLUMNS = ("attack", "members_of", "kind", "task", "members", "nonmembers", *NUMBERS, "why")


def texts(run: Run) -> pd.DataFrame:
    """One row per model and text, columns `TEXT_COLUMNS`: those of `Run.memory`, and `reference`: nll less that of the
    retrained, or else of the untrained model on the same text. Empty where nothing was measured."""
    rows = [{"model": model, **row} for model in run.models() for row in run.memory(model)]
    frame = pd.DataFrame(rows, columns=list(TEXT_COLUMNS))
    frame = frame.astype(dict.fromkeys(TEXT_COLUMNS[6:], float))
    control = next((name for name in ("retrained", "untrained") if (frame["model"] == name).any()), None)
    if control is not None:
        key = ["split", "kind", "id"]
        known = frame[frame["model"] == control].drop_duplicates(key).set_index(key)["nll"]
        theirs = known.reindex(pd.MultiIndex.from_frame(frame[key])).to_numpy()
        frame["reference"] = np.where(frame["model"] == control, np.nan, frame["nll"] - theirs)
    return frame


# ---- one attack ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Choice:
    """An attack and whom it is to recognise: members of forget or retain, kind of text, task ("": all)."""

    attack: str = "nll"
    members_of: str = "forget"
    kind: str = DOCUMENT
    task: str = ""

    def words(self) -> str:
        task = f" of {TASK_LABELS[self.task]}" if self.task else ""
        return f"{ATTACKS[self.attack]} on {KINDS[self.kind].lower()}{task}: {self.members_of} against holdout"


@dataclass(frozen=True, eq=False)
class Sides:
    """Scores of an attack on a model, oriented as losses and indexed by document: its members, and held-out ones."""

    members: pd.Series
    nonmembers: pd.Series

    @property
    def missing(self) -> str:
        """Why there is no attack; "" where there is one."""
        if self.members.empty or self.nonmembers.empty:
            return f"no {'members' if self.members.empty else 'held-out documents'} with a score"
        return "" if len(self.nonmembers) > 1 else "a single held-out document"


def sides(frame: pd.DataFrame, model: str, choice: Choice) -> Sides:
    """Both sides of an attack, from `texts`. One value per document, the mean over its answers, since five questions
    about one person are not five observations; what has no score is left out."""
    return _sides(_documents(frame, model, choice.kind), choice)


def _documents(frame: pd.DataFrame, model: str, kind: str) -> pd.DataFrame:
    """Each document's split, task and mean score of every attack."""
    own = frame[(frame["model"] == model) & (frame["kind"] == kind)]
    return own.groupby(["split", "task", "document"], sort=False)[list(ATTACKS)].mean().reset_index()


def _sides(documents: pd.DataFrame, choice: Choice) -> Sides:
    own = documents[documents["task"] == choice.task] if choice.task else documents
    return Sides(*(own[own["split"] == split].set_index("document")[choice.attack].dropna()
                   for split in (choice.members_of, "holdout")))


def measure(found: Sides) -> dict:
    """`NUMBERS` and `why` (they are None) of one attack.

    auc with its 95 % interval; two_sided, the same on `mia.two_sided`; p of Mann-Whitney's test that neither side is
    larger; tpr, the share of members recognised at 1 % and 5 % false positives, and over, the share that stands out as
    harder than unseen texts; None where the held-out texts are too few for such a rate.
    """
    if found.missing:
        return dict.fromkeys(NUMBERS) | {"why": found.missing}
    both = found.members.to_numpy(), found.nonmembers.to_numpy()
    apart = mia.two_sided(*both)
    rates = {f"{name}_{place}": mia.true_positive_rate(sign * both[0], sign * both[1], rate)
             for name, sign in (("tpr", 1), ("over", -1)) for place, rate in RATES.items()}
    return {**_with_interval("auc", *both), **_with_interval("two_sided", *apart),
            "p": float(mannwhitneyu(*both).pvalue), **rates, "why": ""}


def _with_interval(name: str, members: np.ndarray, nonmembers: np.ndarray) -> dict:
    low, high = mia.auc_interval(members, nonmembers)
    prefix = "" if name == "auc" else f"{name}_"
    return {name: mia.auc(members, nonmembers), f"{prefix}low": low, f"{prefix}high": high}


def by_model(frame: pd.DataFrame, models: Sequence[str], choice: Choice) -> pd.DataFrame:
    """One attack on several models: columns model, members, nonmembers, `NUMBERS`, why."""
    rows = []
    for model in models:
        found = sides(frame, model, choice)
        rows.append({"model": model, "members": len(found.members), "nonmembers": len(found.nonmembers),
                     **measure(found)})
    return pd.DataFrame(rows, columns=["model", "members", "nonmembers", *NUMBERS, "why"]).astype(
        dict.fromkeys(NUMBERS, float))


def table(frame: pd.DataFrame, model: str) -> pd.DataFrame:
    """Every attack on every member set of a model, columns `TABLE_COLUMNS`; `task` "" is all tasks together."""
    rows = []
    for kind in KINDS:
        documents = _documents(frame, model, kind)
        for attack, members_of, task in itertools.product(ATTACKS, MEMBERS, ("", *TASKS)):
            found = _sides(documents, Choice(attack, members_of, kind, task))
            rows.append({"attack": attack, "members_of": members_of, "kind": kind, "task": task,
                         "members": len(found.members), "nonmembers": len(found.nonmembers), **measure(found)})
    return pd.DataFrame(rows, columns=list(TABLE_COLUMNS)).astype(dict.fromkeys(NUMBERS, float))


# ---- words -----------------------------------------------------------------------------------------------------

def describe(row: pd.Series | dict, label: str) -> str:
    """What an attack found on one model, from a row of `by_model` or `table`."""
    if row["why"]:
        return f"{label}: not measured: {row['why']}."
    text = (f"{label}: AUC {row['auc']:.2f} [{row['low']:.2f}, {row['high']:.2f}], {direction(row)} "
            f"(chance 0.5; {row['members']:.0f} members, {row['nonmembers']:.0f} held out)")
    if row["low"] <= 0.5 <= row["high"] and row["two_sided_low"] > 0.5:
        text += (f"; but two-sided {row['two_sided']:.2f} [{row['two_sided_low']:.2f}, {row['two_sided_high']:.2f}]: "
                 "members lie further out on both sides, so some are still recognised and others over-forgotten")
    return text + "."


def direction(row: pd.Series | dict) -> str:
    """Whether an attack recognises members, takes them for harder than unseen text, or neither."""
    if row["low"] > 0.5:
        return "members are still recognised"
    if row["high"] < 0.5:
        return "members are harder than unseen texts"
    return "not told apart from chance"


def best_attack(found: pd.DataFrame) -> pd.Series | None:
    """The row of `table` on forget whose AUC is furthest from 0.5 by the nearer end of its interval; None where none
    was measured."""
    known = found[(found["why"] == "") & (found["members_of"] == "forget")]
    if known.empty:
        return None
    nearest = np.maximum(known["low"] - 0.5, 0.5 - known["high"])
    return known.loc[nearest.idxmax()]


def told_apart(found: pd.DataFrame) -> pd.Series:
    """Which rows of `table` differ from chance when all of them were tried: Holm's correction of `p`, 5 %."""
    return pd.Series(intervals.holm(found["p"].to_numpy()) < 1 - intervals.LEVEL, index=found.index)


def describe_all(found: pd.DataFrame) -> list[str]:
    """Sentences on everything that was tried on one model, from `table`: how many attacks differ from chance, the
    strongest one on forget, and whether the official one alone would have told."""
    known = found[(found["why"] == "") & (found["members_of"] == "forget")]
    if known.empty:
        return ["Not measured: no attack has both members and held-out documents."]
    apart, best = known[told_apart(found)[known.index]], best_attack(found)
    sentences = [f"{len(known)} attacks and member sets of forget were tried; {len(apart)} of them differ from chance "
                 "(Mann-Whitney, 5 % after Holm's correction for all that was tried, retain included)."]
    task = f" of {TASK_LABELS[best['task']]}" if best["task"] else ""
    sentences.append(f"The strongest: {ATTACKS[best['attack']]} on {KINDS[best['kind']].lower()}{task}, AUC "
                     f"{best['auc']:.2f} [{best['low']:.2f}, {best['high']:.2f}]. Found by looking, so its AUC is "
                     "further from 0.5 than it would be on new documents.")
    official = known[(known["attack"] == "nll") & (known["kind"] == DOCUMENT) & (known["task"] == "")]
    if len(official) and direction(official.iloc[0]) == "not told apart from chance" and len(apart):
        sentences.append("The official attack alone (loss on whole documents) does not differ from chance here.")
    return sentences
