"""What the sections of the page Leaks share: what was found, the choice of models, plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from analysis import leaks, leaks_texts, texts, theme
from analysis.leaks import Leaks
from pages import _cache, _generations_text, _widgets
from unlearn_core import launching
from unlearn_core.data.persons import FIELDS, NAME, Value
from unlearn_core.store import Run

BOUND = {"bind": "query-params"}  # every switch but the one for personal data is part of the address
CAUTION = ("*No leak found* is not *forgotten*: it holds for these prompts and this way to ask. The upper bound says "
           "how many people could leak all the same.")
READING = {
    "who": """
A row is one person, a column one field: birth date, Social Security number, phone, e-mail and home address. Before is
left, after is right; the person of whom most is given away after unlearning stands on top.

- **✗ 2/5**: of 5 prompts about the person that do not hold the value already, 2 answers give it away, in whatever form:
  `900 51 4344` is `900514344`, *December 31st, 1984* is *1984-12-31*.
- **~**: it is given away, but anybody could guess it: an e-mail address that is made from the name in the way that most
  people here have theirs. It does not count as a leak.
- **–**: every prompt holds the value itself, so repeating it is an echo and nothing can be said.
- **0/5**: no leak found under these 5 prompts.
""",
    "much": """
Of how many people does some answer give something away that does not follow from their name? The bar is the exact
interval: with few people it stays wide even at 0.

- **By luck** (the thin line): what would be counted if each person had somebody else's values. Where a model is no
  further right than that, it may simply write numbers.
- **Control** (the dotted line, where there is one): a model that never saw these people. The excess over it is what was
  learned from them.
""",
    "samples": """
The usual answer takes the likeliest token each time. Whoever may ask again and again gets others, too: **leak@k** is
the share of people of whom at least one of k answers to each prompt is expected to give something away.

- *A line that rises*: the data are still in the model, only below the surface of the first answer.
- *A line at 0*: no leak found in so many answers; the bar says what it could be all the same.
""",
    "others": """
Unlearning changes a whole model. Are people exposed who were not before?

- **Asked about them**: for people of *forget* this should fall, for those of *retain* it should stay: that is
  retention.
- **Asked about others**: an answer holds a value of somebody whom the prompt is not about. That should not rise. A
  value that the document asked about holds as well, such as the same birth date, does not count.
""",
}


def read(run: Run) -> Leaks | None:
    """What the answers of the run give away; None, and a word about it, where that is not measured."""
    with st.spinner("Reading the answers", show_time=True):
        found = _cache.kept(run, "leaks", lambda: leaks.read(run))
    if not isinstance(found, str):
        return found
    st.info(found, icon=":material/hourglass_empty:")
    if found == texts.NO_ANSWERS:
        _widgets.command(launching.command_line(["evaluate", run.id]))
    return None


def model(found: Leaks) -> str:
    """The model that the section speaks of."""
    return st.selectbox("Model", found.models, index=found.models.index(found.after), key="leaks_model",
                        format_func=theme.short_label, width=190, **BOUND)


def before(found: Leaks) -> str:
    """The model that it is compared with."""
    return st.selectbox("Before", found.models, index=found.models.index(found.default(leaks.BEFORE)),
                        key="leaks_before", format_func=theme.short_label, width=190, **BOUND)


def split() -> str:
    """Whose data: of the people to forget or of those to keep."""
    return st.segmented_control("People of", ["forget", "retain"], default="forget", required=True, key="leaks_split",
                                **BOUND)


def personal() -> bool:
    """Whether personal data are shown."""
    return st.toggle("Show personal data", key="leaks_personal", persist_state="session",
                     help="off: names and values are masked; the switch is not part of the page's address")


def field_name(field: str) -> str:
    """Label of a field or of a name in Markdown; a name that the data gave it is shown as it is."""
    return FIELDS.get(field) or (field if field == NAME else _widgets.plain(field))


def answers(found: Leaks, rows: Mapping[str, Mapping], given: Mapping[str, Sequence[Value]], personal: bool, key: str
            ) -> None:
    """One prompt and what each model of `given` writes to it, with what it gives away marked.

    `rows`: {model: row of `Leaks.texts`}; `given`: {model: (document, field or name) of what its answer gives away}.
    """
    shown = {model: leaks_texts.pieces(found, row, given[model], masked=not personal) for model, row in rows.items()}
    with st.container(border=True, key=key):
        if shown:
            st.markdown(_widgets.plain(next(iter(shown.values()))[0]))
        for column, model in zip(st.columns(len(given)), given, strict=True):
            with column:
                said = ", ".join(dict.fromkeys(field_name(field) for _, field in given[model]))
                st.caption(f"{theme.short_label(model)}" + (f" gives away: {said}" if said else ""))
                if model in shown:
                    _generations_text.show(shown[model][1])
                else:
                    st.caption("no such answer, or nothing personal in it")


def summary(run: Run, found: Leaks, split: str) -> pd.DataFrame:
    """`leaks.summary`, kept."""
    return _cache.kept(run, ("leaks summary", split), lambda: leaks.summary(found, split))


def said(run: Run, found: Leaks, model: str, split: str) -> list[str]:
    """`leaks.describe`, kept."""
    return _cache.kept(run, ("leaks said", model, split), lambda: leaks.describe(found, model, split))


def bullets(sentences: list[str]) -> None:
    """Findings, one below the other."""
    st.markdown("\n".join(f"- {sentence}" for sentence in sentences))


def about(run: Run, found: Leaks, split: str) -> str:
    """How many people and prompts, for a caption."""
    row = summary(run, found, split).iloc[-1:]
    if row.empty:
        return f"seed {run.recipe().seed}"
    return (f"n = {row['people'].iloc[0]} people of {split}, {row['prompts'].iloc[0]} prompts, greedy answers; seed of "
            f"the run {run.recipe().seed}")


def explain(section: str) -> None:
    """What the section shows, in plain words."""
    with _widgets.folded("How to read this", key="leaks_reading") as opened:
        if opened.open:
            st.markdown(READING[section])
