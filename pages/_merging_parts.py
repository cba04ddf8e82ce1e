"""What the sections of the merge page share: the scored merges, the job that scores more, plain words."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from analysis import locked, merging
from pages import _cache, _frame, _widgets, _work
from unlearn_core import jobs, launching
from unlearn_core.settings import Merge
from unlearn_core.store import Run
from unlearn_core.trials import halves
from unlearn_core.vocabulary import UNLEARNED

SCORED = {"name": "Merge", "task_aggregate": "Task Aggregate", "mia_auc": "MIA AUC", "forget": "Mean forget",
          "retain": "Mean retain", "norm_ratio": "Norm ratio"}
SECTION = "merge_section"  # key of the chosen section
BOUND = {"bind": "query-params"}  # every switch is part of the address
DOCUMENTS = 8  # per task and side: enough to see a trend
DENSITIES = [round(0.1 * step, 1) for step in range(1, 11)]
HALVES = (halves.DEVELOPMENT, halves.ALL)  # on which a sweep may be scored
PARTS = {"density": "Densities", "methods": "Methods", "path": "Path", "surface": "Surface"}
CAUTIOUS = ("Intervals: 95 %, for the AUC its own; for a mean of six scores from the mean of their lower ends to the "
            "mean of their upper ends, which is cautious; the Task Aggregate, a harmonic mean, has none.")
READING = {
    "balance": """
The AUC of the attack should be where it is for a model that never saw what was to be forgotten. Almost any update gets
there if it is made larger or smaller, so the question is which one keeps most on the way.

- Each **family** has one knob: a size, a mix, or the step at which training stopped. It is set on one half of the
  documents and judged on the other, and then the other way round: no number was used to choose what it measures.
- **Controls** need no merge: Model 1 alone made smaller, stopped early, or averaged over its own checkpoints; and the
  plain mean of both. If one of them is as good at the same AUC, it is the size and not the merge that did it.
- *The interval of a difference crosses 0*: with these documents the two cannot be told apart.
- *Too little to conclude*: with so few people or documents in a half, luck would decide.
""",
    "preview": """
Drag the sliders and see at once what the merge would be like. Nothing is trained or scored here: all numbers follow
exactly from statistics of the two adapters that were stored before.

- **Norm ratio**: size of the merged change beside the mean size of its two parents. 1 keeps the size. Well *below 1*
  merging has cancelled much, and the model tends to remember again; well *above 1* it overshoots, and damage spreads.
- **Cosine to a parent**: 1 is the same direction, 0 nothing in common. A merge that is far nearer to one parent behaves
  like that parent.
- **Conflicts**: of the entries that both models keep, how many have opposite signs. 50 % is what two random directions
  have.
- **Density**: the share of each model's entries that TIES keeps; the small ones are set to 0.
- **Level**: PEFT merges the two small factors A and B of an adapter; *delta W* merges their product, which is what
  changes in the model. The two are not the same.
""",
    "methods": """
Methods differ in two things at once: which direction they take, and how large the update becomes. Adding the factors
of two adapters makes an update up to four times as large as its parents, and a larger update forgets more and breaks
more. So a ranking of methods *as they come* is partly a ranking of sizes.

- **Open marks**: each method as it comes. **Filled marks**: the same direction, scaled to the mean size of the parents.
- *The marks of a method lie far apart*: its score was a matter of size. *Filled marks lie close together*: at one size
  the methods hardly differ.
- **Task Aggregate** is 0 as soon as one of its twelve terms is 0, such as one kind of retained knowledge being lost.
""",
    "density": """
Density is the share of each model's entries that the merge keeps. Is the setting of the run a lucky point, or one of
many that do as well?

- **Plateau**: neighbouring densities do as well as far as the intervals can tell; the choice hardly matters.
- **Peak**: one density stands out. With few documents that can be luck; measure again with another seed.
- The **AUC** should be near 0.5: above, the attack still recognises what was to be forgotten; below, it was forgotten
  so hard that this shows.
""",
    "mix": """
**Path**: the straight line from Model 1's change to the merge and on to Model 2's. If the merge were only a compromise,
its scores would lie between its neighbours'; a bump at the merge says that it is better than mixing.

**Surface**: all mixes w1 · Model 1 + w2 · Model 2. The corner (0, 0) is the base, (1, 0) is Model 1, (0, 1) is Model 2,
and (0.5, 0.5) their plain mean. A merge such as TIES does not lie in this plane; its mark is the nearest point of it.

- *A broad bright area*: many mixes do well. *A narrow ridge*: the balance is delicate.
- Look at forget and AUC together with retain: the upper right corner forgets everything, and all else with it.
""",
}


def explain(section: str) -> None:
    """What the section shows, in plain words."""
    with _widgets.folded("How to read this", key="merge_reading") as opened:
        if opened.open:
            st.markdown(READING[section])


def scored(run: Run, kinds: Sequence[str]) -> pd.DataFrame | None:
    """All scored merges of the run; None, and a word about it, where there is none of these kinds."""
    frame = _cache.table(merging.table, run)
    if frame["kind"].isin(kinds).any():
        return frame
    st.info("This has not been measured on this run.", icon=":material/hourglass_empty:")
    return None


def about(run: Run, n: int, what: str) -> str:
    """How many merges were scored on what, for a caption."""
    return f"n = {n} {what}, {halves.scored_on(run.merges())}; seed of the run {run.recipe().seed}."


def optimistic(run: Run) -> str:
    """What to know of a choice by these scores."""
    return locked.chosen_on(run.merges())


def _half(before: dict) -> str:
    """The half of the documents that `Run.merges` was scored on, or would be."""
    return before.get("half", halves.ALL) if before else halves.DEVELOPMENT


def job(run: Run, parts: Sequence[str], *, measured: bool) -> None:
    """What has these parts of a sweep scored: why it cannot be, or a form with its command and a button."""
    _work.job_form(run, UNLEARNED, lambda: _form(run, parts), key=f"merge_job_{parts[0]}", first="Score them",
                      again="Score more, or on other documents", measured=measured)


def score(run: Run, choice: Merge) -> None:
    """The merges with settings of one's own that were scored, and the job that scores one more."""
    st.subheader("What does it forget and keep?")
    frame = _cache.table(merging.table, run)
    own = frame[frame["kind"] == "custom"]
    if len(own):
        shown = own[list(SCORED)].rename(columns=SCORED)
        _widgets.show_table(shown, key="merge_custom", alt="Scores of merges with settings of one's own",
                            columns={name: st.column_config.NumberColumn(format="%.3f") for name in shown.columns[1:]})
        st.caption(f"{about(run, len(own), 'merges')} {optimistic(run)}")
    settings = merging.settings(run.recipe(), choice)
    if not settings:
        st.caption("These are the settings of the run, whose scores Overview shows.")
        return
    if run.recorded():
        st.caption("A recording has no adapters to merge with other settings.")
        return
    before = run.merges()
    documents, seed = before.get("documents_per_task", DOCUMENTS), before.get("seed", 0)
    half = ["--half", _half(before)] if _half(before) != halves.DEVELOPMENT else []
    arguments = [*(word for setting in settings for word in ("--set", setting)), "--documents", str(documents),
                 "--seed", str(seed), *half]
    st.caption(f"One evaluation on {documents or 'all'} documents per task and side, as the other merges of this run. "
               "In a terminal:")
    _widgets.command(launching.command_line(["merge-sweep", run.id, *arguments]))
    if not _frame.read_only() and not _work.busy(run) and set(UNLEARNED) <= set(run.adapter_weights()):
        with _widgets.row():
            device = _work.device("merge_custom_device")
            st.button("Merge and evaluate", icon=":material/play_arrow:", key="merge_custom_start",
                      on_click=_frame.attempt,
                      args=(lambda: jobs.measure(run, "merge-sweep", arguments, device=device),))


def _form(run: Run, parts: Sequence[str]) -> None:
    before = run.merges()
    with _widgets.row():
        chosen = list(parts)
        if len(parts) > 1:
            chosen = st.pills("What", parts, default=parts, selection_mode="multi", key="merge_parts",
                              persist_state="session", format_func=PARTS.get)
        densities = _densities(run) if "density" in parts else []
        documents = st.number_input("Documents per task and side", 0, None, before.get("documents_per_task", DOCUMENTS),
                                    key="merge_documents", persist_state="session", width=220,
                                    help="0: all; few are fast and noisy")
        seed = st.number_input("Seed of the choice", 0, None, before.get("seed", 0), key="merge_seed",
                               persist_state="session", width=160)
        half = st.selectbox("Half of the documents", HALVES, HALVES.index(_half(before)), key="merge_half",
                            persist_state="session", width=190, help="development: to choose on; all: counts as a look "
                                                                     "at the test half")
        device = "" if _frame.read_only() else _work.device("merge_device")
    asked = merging.Sweep(tuple(chosen), tuple(densities), documents, seed, before.get("mmlu_limit", -1), half)
    if not asked.evaluations:
        st.caption("Choose something to score.")
        return
    st.caption(f"{asked.evaluations} evaluations at most, each as long as scoring one model on these documents. What "
               "was scored on the same documents before is kept; other documents replace all of it, in every section. "
               "In a terminal:")
    _widgets.command(launching.command_line(["merge-sweep", run.id, *asked.arguments]))
    if not _frame.read_only():
        st.button("Score these merges", icon=":material/play_arrow:", type="primary", key="merge_start",
                  on_click=_frame.attempt,
                  args=(lambda: jobs.measure(run, "merge-sweep", asked.arguments, device=device),))


def _densities(run: Run) -> list[float]:
    known = sorted({*DENSITIES, run.recipe().merge.density})
    usual = [density for density in known if density >= 0.2]
    return st.pills("Densities", known, default=usual, selection_mode="multi", key="merge_densities",
                    persist_state="session", format_func=lambda density: f"{density:g}")
