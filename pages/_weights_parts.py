"""What the sections of the weights page share: the statistics and how to get them, the filter, the chosen matrix."""

from __future__ import annotations

import streamlit as st

from analysis import theme, weights
from analysis.weights import Measured
from pages import _cache, _frame, _widgets, _work
from unlearn_core import jobs, launching
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

MATRIX = "weights_matrix"  # key of the chosen matrix, in whatever section it is chosen
READING = {
    "ablation": """
Where the weights changed most is not by itself where something was forgotten. Here a part of the merge is taken out
(or kept alone, or turned around), and the model is scored again.

- *The diamond far from the dotted line*: the part matters for that score.
- *The diamond within the grey range*: random entries of the same number and size matter as much, so this place is not
  special; only the size of the change counts.
- *Removing a part raises the forget score*: what was forgotten comes back, so it was forgotten there.

With few documents and few random parts a diamond can leave the grey range by chance: of many parts some will.
""",
    "where": """
Each cell is one weight matrix of the model: its layer across, its kind down. The colour says how far unlearning moved
the matrix, as a share of its own size: 0.1 means that the change is a tenth as large as the matrix was.

- *A few bright cells*: the change sits in few places. *Even colour*: it is spread over the whole model.
- *Model 1 brighter than Model 2 everywhere*: it was trained harder, or longer. Look at the pattern, not at the level.
- *Merged darker than both*: merging cancelled much of what they disagree on.

A large change is not yet where something was forgotten: small changes can matter more than large ones.
""",
    "direction": """
Two changes of a matrix are two directions in a space of very many dimensions. The angle between them says whether they
pull the same way: 0° the same, 90° nothing in common, 180° opposite. In so many dimensions two *random* directions
are almost exactly at 90°: the grey band shows how exactly. An angle outside of it is no accident.

- *Model 1 and Model 2 near 90°*: they changed different things, and merging mostly adds. *Far above 90°*: they work
  against each other, and merging cancels.
- *A parent nearer to the merged model*: its change dominates the merge, often because it is larger.

The second half cuts one training in two at step s. If the way from the start to s and the way from s to the end stand
at 90°, training did something else after s than before, and did not simply go on. The two angles to the whole always
add up to the angle between the parts, so not all three can be near 90°.
""",
    "spectrum": """
Any change of a matrix is a sum of simple ones, each a single direction in and a single direction out; the singular
values are their strengths, the largest first.

- *A steep fall*: a few directions do almost everything, so the change is simple and could be stored or undone cheaply.
- *A flat line*: it is spread over as many directions as the adapter has.
- **Stable rank** counts directions in one number: 1 where one does everything, the rank of the adapter where all are
  equally strong. A merge that sets entries to zero breaks simple changes up, which raises it.
""",
    "distribution": """
How large the single entries of a change are. A bell around 0 means that every weight moved a little; long tails mean
that few moved far.

- *A spike at 0 in the merged model*: entries that trimming or the election of signs set to zero.
- *A narrower merged curve*: merging shrank the change.

On the log scale a bell is a parabola, and tails that fall more slowly are heavier than a bell's.
""",
}


# ---- the statistics --------------------------------------------------------------------------------------------

def measured(run: Run) -> Measured | None:
    """The statistics of the run; above them what they lack. Where there are none: why, and how to make them."""
    try:
        found = _cache.kept(run, "weights", lambda: weights.read(run))
    except InputError as error:
        st.error(_widgets.plain(error), icon=":material/broken_image:")
        offer(run)
        return None
    files = list(run.adapter_weights().values())
    if found is None:
        st.info("The weight changes of this run have not been measured.", icon=":material/hourglass_empty:")
        if files:
            offer(run)
        else:
            st.caption("They cannot be: this run has no adapters. A run that goes on makes and measures them; a "
                       "recorded run comes without weights.")
        return None
    changed = _cache.kept(run, "stale weights", lambda: weights.stale(run, found.about), files)
    if changed:
        st.warning(f"What is shown was measured before the adapter of {weights.named(changed)} was made or changed.",
                   icon=":material/update:")
        offer(run)
    absent = [model for model in (*UNLEARNED, "merged") if model not in found.models]
    if absent and not changed:
        st.info(f"There is no adapter of {weights.named(absent)} in what was measured.",
                icon=":material/hourglass_empty:")
    return found


def offer(run: Run) -> None:
    """The command that measures the weights, and a button that does; nothing of a recording, which has none."""
    if run.recorded():
        return
    if _work.busy(run):
        st.caption("A process is working on this run, or waits to; its weights can be measured when it is done.")
        return
    _widgets.command(launching.command_line(["weights", run.id]))
    if not _frame.read_only():
        with _widgets.row():
            device = _work.device("weights_device")
            st.button("Measure the weights", icon=":material/play_arrow:", type="primary", key="weights_start",
                      on_click=_frame.attempt, args=(lambda: jobs.measure(run, "weights", device=device),))


def without_entries(run: Run) -> None:
    """What to say where the entry-wise statistics were left out."""
    st.info("The entries themselves were not taken, since they are many. To take them:", icon=":material/grid_off:")
    _widgets.command(launching.command_line(["weights", run.id, "--entries"]))


def explain(section: str) -> None:
    """What the section shows, in plain words."""
    with _widgets.folded("How to read this", key="weights_reading") as opened:
        if opened.open:
            st.markdown(READING[section])


# ---- choices ---------------------------------------------------------------------------------------------------

def types(measured: Measured) -> list[str]:
    """Module types to look at."""
    known = weights.module_types(measured.modules["type"])
    return st.pills("Module types", known, default=known, selection_mode="multi", key="weights_types",
                    bind="query-params")


def matrix(measured: Measured, types: list[str], otherwise: str) -> str | None:
    """The chosen matrix; None where none is, and what is shown `otherwise`."""
    names = measured.chosen(types)["module"].tolist()
    return st.selectbox("Matrix", names, index=None, key=MATRIX, bind="query-params", width=460,
                        placeholder=otherwise)


def n(measured: Measured, types: list[str], seed: int) -> str:
    """How many matrices of which models, for a caption."""
    return (f"n = {len(measured.chosen(types))} matrices of each of "
            f"{', '.join(map(theme.short_label, measured.models))}; seed {seed}")
