"""Of a run's answers those with data of somebody whom the prompt is not about: is anybody more exposed than before?"""

from __future__ import annotations

import pandas as pd
from scipy.stats import binomtest

from analysis import theme
from analysis.leaks import Leaks, label, share, summary
from unlearn_core.data import persons
from unlearn_core.data.persons import NAME, Value

EXPOSED_COLUMNS = ("model", "split", "how", "people", "exposed", "share", "low", "high")
CHANGED_COLUMNS = ("when", "split", "id", "document", "whose", "whose_split", "field")
ABOUT, BESIDE = "asked about them", "asked about others"


def exposed(found: Leaks) -> pd.DataFrame:
    """One row per model, split of the exposed people and how they are asked for, columns `EXPOSED_COLUMNS`: of how many
    a value (more than a name) is given away by answers about them, and by answers about others."""
    rows = [{"model": row["model"], "split": split, "how": ABOUT,
             **share(row["leaking"], row["people"], "exposed")}
            for split in ("forget", "retain") for row in summary(found, split).to_dict("records")]
    beside = found.strangers[found.strangers["field"] != NAME]
    everybody = found.people.drop_duplicates(["split", "document"]).groupby("split")["document"].nunique()
    for model in found.models:
        for split, n in everybody.items():
            own = beside[(beside["model"] == model) & (beside["whose_split"] == split)]
            rows.append({"model": model, "split": split, "how": BESIDE, **share(own["whose"].nunique(), n, "exposed")})
    return pd.DataFrame(rows, columns=list(EXPOSED_COLUMNS))


def changed(found: Leaks, before: str, after: str) -> pd.DataFrame:
    """Rows of `Leaks.strangers` of both models with `when`: "only before", "only after" or "both", by the same answer
    and value; those that came first."""
    keys = ["split", "id", "document", "whose", "whose_split", "field"]
    sides = [found.strangers.loc[found.strangers["model"] == model, keys] for model in (before, after)]
    both = sides[0].merge(sides[1], how="outer", indicator="when")
    names = {"right_only": "only after", "both": "both", "left_only": "only before"}
    both = both.assign(when=pd.Categorical(both["when"].map(names), list(names.values()), ordered=True))
    return both.sort_values(["when", "split", "id"], kind="stable").reset_index(drop=True)[list(CHANGED_COLUMNS)]


def shown(found: Leaks, rows: pd.DataFrame, masked: bool) -> pd.DataFrame:
    """Rows of `changed` for a reader, somebody else by name or, masked, by document."""
    return rows.assign(whose=[label(found, document, masked) for document in rows["whose"]],
                       field=rows["field"].map(persons.label))[["when", "split", "id", "field", "whose", "whose_split"]]


def values(found: Leaks, item: str, split: str, model: str) -> list[Value]:
    """(document, field or name) of everybody else whose data a model's answer to an item holds."""
    rows = found.strangers
    own = rows[(rows["id"] == item) & (rows["split"] == split) & (rows["model"] == model)]
    return list(zip(own["whose"], own["field"], strict=True))


def describe(found: Leaks, before: str, after: str) -> list[str]:
    """Sentences: answers that hold a value of somebody they are not about, before and after, and whether that rose,
    paired by the document asked about, since the items of a document are not independent."""
    rows = changed(found, before, after)
    rows = rows[rows["field"] != NAME]
    asked = found.answers.groupby("model")["answers"].sum()
    counts = [f"{theme.short_label(model)}: {len(rows[rows['when'] != gone].drop_duplicates(['split', 'id']))} of "
              f"{asked[model]}" for model, gone in ((before, "only after"), (after, "only before"))]
    holding = {model: set(map(tuple, rows.loc[rows["when"] != gone, ["split", "document"]].to_numpy()))
               for model, gone in ((before, "only after"), (after, "only before"))}
    more, fewer = len(holding[after] - holding[before]), len(holding[before] - holding[after])
    tested = f"sign test p = {binomtest(more, more + fewer).pvalue:.2g}" if more + fewer else "nothing to test"
    words = "More than before" if more > fewer else "Fewer than before" if fewer > more else "No change"
    return [f"Answers that hold a value of somebody whom the prompt is not about. {counts[0]}; {counts[1]}.",
            f"{words}, by the documents asked about: {more} only after, {fewer} only before ({tested})."]
