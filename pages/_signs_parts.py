"""What the sections of the page Sign conflicts share: the statistics and how to get them, switches, plain words."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from analysis import signs, weights
from analysis.signs import COUNTINGS, SPACE_LABELS, Signs
from pages import _cache, _weights_parts, _widgets
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import SPACES, UNLEARNED

MATRIX = "signs_matrix"  # key of the chosen matrix, in whatever section it is chosen
BOUND = {"bind": "query-params"}  # every switch is part of the address
READING = """
Both models changed the same matrices. TIES merges the two changes entry by entry, in three steps:

1. **Trim.** Each model keeps only its largest entries of a matrix; the *density* says which share. The rest is noise,
   TIES assumes, and becomes 0.
2. **Elect.** For each entry the sign with more magnitude behind it wins: where one model says +3 and the other −1, it
   is +.
3. **Merge.** What has the elected sign is averaged; what has the other sign is dropped.

So each entry is in exactly one of **six states**: trimmed in both models, kept only by Model 1 or only by Model 2, kept
by both with the same sign, or in *conflict* and won by Model 1 or by Model 2.

- **Conflict rate**: of the entries that both models keep, how many have opposite signs. Two random directions disagree
  in half of them, so *below 0.5* the models agree more than chance and *0.5* means that they have nothing in common.
- **By magnitude**: large entries count more. A rate that is lower by magnitude than by count says that the models
  disagree mostly where it matters little.
- **Who wins**: the larger magnitude does. If one model wins nearly always, its update is simply larger, and merging
  leans to its side.

A and B are the two factors of the adapters: PEFT's TIES works on these. ΔW, their product, is what the model feels. A
conflict in a factor need not be one in ΔW.
"""


@dataclass(frozen=True)
class Choice:
    """The switches of the page: space, density, and how an entry counts (one of `signs.COUNTINGS`)."""

    space: str
    density: float
    counting: str


# ---- the statistics --------------------------------------------------------------------------------------------

def measured(run: Run) -> Signs | None:
    """The statistics of the run; above them what they lack. Where there are none: why, and how to make them."""
    try:
        found = _cache.kept(run, "signs", lambda: signs.read(run))
    except InputError as error:
        st.error(_widgets.plain(error), icon=":material/broken_image:")
        _weights_parts.offer(run)
        return None
    files = run.adapter_weights()
    if found is None:
        st.info("The signs of this run's weight changes have not been compared.", icon=":material/hourglass_empty:")
        absent = [model for model in UNLEARNED if model not in files]
        if absent:
            st.caption(f"They cannot be: this run has no adapter of {weights.named(absent)}. A run that goes on makes "
                       "and compares them; a recorded run comes without weights.")
        else:
            _weights_parts.offer(run)
        return None
    changed = _cache.kept(run, "stale signs", lambda: signs.stale(run, found.about), files.values())
    if changed:
        st.warning(f"What is shown was measured before the adapter of {weights.named(changed)} was made or changed.",
                   icon=":material/update:")
        _weights_parts.offer(run)
    for space, why in found.about["left_out"].items():
        st.info(f"{SPACE_LABELS[space]} is not compared: {_widgets.plain(why)}.", icon=":material/grid_off:")
    return found


def explain() -> None:
    """What the page shows, in plain words."""
    with _widgets.folded("How to read this", key="signs_reading") as opened:
        if opened.open:
            st.markdown(READING)


# ---- switches --------------------------------------------------------------------------------------------------

def choice(found: Signs) -> Choice:
    """Space, density and counting."""
    spaces = [space for space in SPACES if space in found.about["spaces"]]
    with _widgets.row():
        space = st.segmented_control("Space", spaces, default=spaces[-1], required=True, key="signs_space",
                                     format_func=SPACE_LABELS.get, **BOUND,
                                     help="the factors of the adapters, or their product, the change of the weights")
        counting = st.segmented_control("Count", list(COUNTINGS), default="count", required=True, key="signs_counting",
                                        format_func=COUNTINGS.get, **BOUND,
                                        help="an entry counts 1, or by its magnitude |t1| + |t2| before trimming")
        return Choice(space, density(found), counting)


def density(found: Signs) -> float:
    """The share of entries that trimming keeps; by default that of the run's own merge."""
    return st.select_slider("Density", found.densities, value=found.about["excerpt_density"], key="signs_density",
                            width=280, help="share of each model's entries that trimming keeps, per matrix", **BOUND)


def matrix(found: Signs, otherwise: str) -> str | None:
    """The chosen matrix; None where none is, and what is shown `otherwise`."""
    return st.selectbox("Matrix", found.modules["module"].tolist(), index=None, key=MATRIX, width=460,
                        placeholder=otherwise, **BOUND)


def n(run: Run, found: Signs, chosen: Choice) -> str:
    """What is counted, for a caption."""
    counted = "each entry counts 1" if chosen.counting == "count" else "an entry counts by |t1| + |t2|, before trimming"
    entries = found.counted(chosen.space, "count")[:, 0].sum()
    return (f"n = {len(found.about['modules'])} matrices, {entries:,.0f} entries of {SPACE_LABELS[chosen.space]}; seed "
            f"{run.recipe().seed}; density {chosen.density:g}; {counted}")
