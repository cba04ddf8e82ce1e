"""Section of the method page: the three steps of TIES, a run's own merge in numbers, and TIES on four numbers."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import glossary_formulas as formulas
from analysis import method_figures, method_loss, method_ties, theme, weights
from pages import _cache, _explained_parts, _widgets
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

DENSITIES = (0.25, 0.5, 0.75, 1.0)
COLUMNS = [method_ties.ENTRY.format(place) for place in range(1, len(method_ties.FIRST) + 1)]


def show(run: Run | None) -> None:
    """The steps, the merge of the run, the toy."""
    st.markdown(
        "TIES makes one change of the weights out of two, entry by entry:\n"
        "1. **Trim**: of each model keep the entries of largest magnitude, a share `density` of them; the rest is 0.\n"
        "2. **Elect**: per entry the sign with more magnitude behind it.\n"
        "3. **Merge**: the mean of those that have the elected sign. What pulls the other way is dropped, and does not "
        "cancel anything.")
    _explained_parts.formula(formulas.TIES)
    recipe, whose = _explained_parts.subject(run)
    st.caption(f"τ: the trimmed changes, w: the weights, γ: the elected signs. In {whose}: "
               f"{method_loss.merge_in_words(recipe.merge)}.{_sizes(run)}")
    _toy()


def _sizes(run: Run | None) -> str:
    if not _explained_parts.trained(run):
        return ""
    try:
        found = method_loss.sizes(_cache.kept(run, "weights", lambda: weights.read(run)))
    except InputError:  # the page Weights says so
        found = {}
    return f" {method_loss.sizes_in_words(found)}"


def _toy() -> None:
    st.subheader("Which of two opposite entries survives?")
    st.caption("Change the numbers, the density and the weights.")
    given = st.data_editor(
        pd.DataFrame([method_ties.FIRST, method_ties.SECOND], columns=COLUMNS,
                     index=pd.Index([theme.short_label(model) for model in UNLEARNED], name="Change by")),
        key="method_vectors", width="stretch", alt="Two editable vectors of four numbers")
    with _widgets.row():
        density = st.select_slider("Density", DENSITIES, value=method_ties.DENSITY, key="method_density", width=260,
                                   help=_widgets.defined("share of the entries that is kept", "merge.density"),
                                   **_explained_parts.BOUND)
        scales = [st.slider(f"Weight of {theme.short_label(model)}", -1.0, 2.0, 1.0, 0.25, width=200,
                            key=f"method_weight_{number}", **_explained_parts.BOUND)
                  for number, model in enumerate(UNLEARNED, start=1)]
    vectors = given.to_numpy(float)
    found = method_ties.steps(*vectors, density, scales)
    table = method_ties.table(found, scales)
    st.table(table.set_index("Step"))
    for sentence in method_ties.describe(found, scales):
        st.markdown(f"- {sentence}")
    if method_ties.has_a_tie(*vectors, density):
        st.caption("Trimming had to choose between equal magnitudes and kept the first; PEFT may keep another one.")
    _widgets.chart(
        method_figures.ties(found, scales), table, key="method_ties", terms=("ties", "density", "sign_conflict"),
        title="Where do TIES and the plain mean differ?",
        alt="Two vectors of four entries, what trimming leaves, the merge by TIES and the plain mean",
        caption="Bars: the entries of each model, striped where trimmed. Signs are elected before weighting, "
                "and a merged entry is divided by the number of its contributors, as in PEFT; the settings "
                "merge.elect and merge.divisor change that. Plain mean: nothing trimmed, nothing elected, divided by "
                "two.")
