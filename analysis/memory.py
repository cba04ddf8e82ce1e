"""How much a model still holds of its texts, and how deep: means over documents with intervals, and depth by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import intervals, theme
from unlearn_core.store import Run
from unlearn_core.vocabulary import DOCUMENT

MEASURES = {"extraction_strength": "Extraction strength", "exact_memorisation": "Exact memorisation",
            "probability": "Probability per token"}
HELP = {"extraction_strength": "share of an answer after the last token that is not the likeliest one: what a model "
                               "would write if it is led so far",
        "exact_memorisation": "share of an answer's tokens that are the likeliest ones",
        "probability": "e to the minus mean loss of an answer's tokens"}
COLUMNS = ("model", "measure", "split", "value", "low", "high", "documents")
DEPTH_COLUMNS = ("model", "split", "layer", "value", "low", "high", "documents")
SHALLOWER = 0.5  # nats by which a layer before the last must be better to be told of


def measures(texts: pd.DataFrame, models: Sequence[str], task: str = "") -> pd.DataFrame:
    """Means of the answers' `MEASURES` per model and split, columns `COLUMNS`: first over a document's answers, then
    over documents, with a 95 % t interval cut to [0, 1]. `texts` is `attacks.texts`; holdout is what chance gives."""
    answers = texts[(texts["kind"] != DOCUMENT) & texts["nll"].notna()]
    answers = answers[answers["task"] == task] if task else answers
    answers = answers.assign(probability=np.exp(-answers["nll"]))
    documents = answers.groupby(["model", "split", "document"], sort=False)[list(MEASURES)].mean()
    rows = []
    for model in models:
        for measure in MEASURES:
            for split in ("forget", "retain", "holdout"):
                if (model, split) not in documents.index:
                    continue
                values = documents.loc[(model, split), measure].tolist()
                value, low, high = intervals.mean(values)
                rows.append({"model": model, "measure": measure, "split": split, "value": value, "low": max(low, 0.0),
                             "high": min(high, 1.0), "documents": len(values)})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def depth(run: Run, models: Sequence[str]) -> pd.DataFrame:
    """Mean log-probability of the answers of forget, and of holdout for a control, after each layer by the logit lens,
    columns `DEPTH_COLUMNS`, with a 95 % t interval over documents; layer 0 is the embeddings. Empty without a lens.

    Layers at which no answer was read (`unlearn_core.evaluation.memory.depths`) have no row."""
    rows = []
    for model in models:
        found = pd.DataFrame([{"split": row["split"], "document": row["document"], **dict(enumerate(row["lens"]))}
                              for row in run.memory(model) if row.get("lens")])
        if found.empty:
            continue
        for split, own in found.groupby("split"):
            means = own.drop(columns="split").groupby("document", sort=False).mean()
            for layer, values in means.dropna(axis="columns", how="all").items():
                value, low, high = intervals.mean(values.dropna().tolist())
                rows.append({"model": model, "split": split, "layer": layer, "value": value, "low": low, "high": high,
                             "documents": len(values)})
    return pd.DataFrame(rows, columns=list(DEPTH_COLUMNS))


# ---- words -----------------------------------------------------------------------------------------------------

def inside(found: pd.DataFrame, model: str) -> int | None:
    """The layer before the last one that still holds forget's answers, from `depth`; None where none does.

    It gives them clearly more than the end does, and clearly more than it gives the answers of holdout, which the model
    never saw; of several such layers the one that gives them most.
    """
    own, control = (found[(found["model"] == model) & (found["split"] == split)].set_index("layer")
                    for split in ("forget", "holdout"))
    if own.empty:
        return None
    known = own["low"] > control["high"].reindex(own.index)
    better = own[known & (own["value"] > own["value"].loc[own.index.max()] + SHALLOWER)]
    return None if better.empty else int(better["value"].idxmax())


def describe_depth(found: pd.DataFrame) -> list[str]:
    """Sentences on how well forget's answers are known at the end, and on a layer that still holds them (`inside`)."""
    sentences = []
    for model, both in found.groupby("model", sort=False):
        own, control = (both[both["split"] == split].set_index("layer") for split in ("forget", "holdout"))
        if own.empty:
            continue
        last, best = own.index.max(), inside(found, model)
        text = f"{theme.short_label(model)}: {_nats(own.loc[last])} at the end"
        if best is not None:
            text += (f", but {_nats(own.loc[best])} after layer {best} of {last}, where unseen answers have "
                     f"{_nats(control.loc[best])}: what the last layers hide is still inside")
        sentences.append(text + ".")
    return sentences


def _nats(row: pd.Series) -> str:
    return f"log p {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def describe(found: pd.DataFrame, model: str) -> str:
    """One sentence on a model's extraction strength on forget beside what unseen texts have, from `measures`."""
    own = found[(found["model"] == model) & (found["measure"] == "extraction_strength")].set_index("split")
    if "forget" not in own.index:
        return f"{theme.short_label(model)}: not measured."
    text = f"{theme.short_label(model)}: extraction strength on forget {_span(own.loc['forget'])}"
    if "holdout" in own.index:
        text += f", on texts that it never saw {_span(own.loc['holdout'])}"
        if own.loc["forget", "low"] > own.loc["holdout", "high"]:
            text += ": it still holds more of forget than of unseen texts"
        elif own.loc["forget", "high"] < own.loc["holdout", "low"]:
            text += ": it holds less of forget than of texts that it never saw"
    return text + "."


def _span(row: pd.Series) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
