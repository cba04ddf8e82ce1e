"""Parts of the Overview: the run table with its filters, and import, export, title, tags and archiving of a run."""

from __future__ import annotations

import io
import zlib
from functools import partial

import pandas as pd
import streamlit as st

from analysis import comparison, frames
from pages import _cache, _frame, _widgets
from pages._overview_scores import COMPARED, metric_columns
from unlearn_core import archive, jobs
from unlearn_core.errors import InputError
from unlearn_core.store import STATES, Run
from unlearn_core.vocabulary import METRICS, MMLU_GATE_SHARE, SUB_SCORES

UPLOADS = "overview_uploads"  # how many uploads were imported: a new uploader each time, empty again
MAX_DOWNLOAD = 2**30  # bytes; a download passes through memory
MEBIBYTE = 2**20

number = st.column_config.NumberColumn


# ---- the run table ---------------------------------------------------------------------------------------------

def run_table(runs: pd.DataFrame, selected: str, examples: set[str]) -> None:
    """The filtered and sorted runs, the recorded examples named as such, and what can be done with the picked rows."""
    shown = _filtered(runs)
    if shown.empty:
        st.info("No run matches these filters.", icon=":material/filter_alt_off:")
        return
    marked = shown.assign(chosen=["▸" if name == selected else "" for name in shown["id"]],
                          name=[f"{_frame.EXAMPLE * (name in examples)}{title or name}"
                                for name, title in zip(shown["id"], shown["title"], strict=True)],
                          terms=[terms if isinstance(terms, list) and None not in terms else None
                                 for terms in shown["terms"]])
    # Picked rows are positions: other rows make another table, in which none is picked.
    key = f"overview_runs_{zlib.crc32(' '.join(shown['id']).encode())}"
    state = st.dataframe(
        marked, key=key, width="stretch", hide_index=True, placeholder=_widgets.NOT_MEASURED, on_select="rerun",
        selection_mode="multi-row", alt="All runs with state, tags and scores",
        column_config=metric_columns(shown) | _run_columns(),
        column_order=("chosen", "name", "state", "aggregate", "terms", "verdict", "mmlu_gate", "tags", "elapsed_s",
                      "task_aggregate", "mia_auc", "mmlu", "created", "recipe", "seed", "id"))
    picked = [shown["id"].iloc[row] for row in state.selection.rows if row < len(shown)]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Open", icon=":material/open_in_new:", disabled=len(picked) != 1, on_click=_open, args=picked[:1],
                  help="Show the picked run below and on every page.")
        st.button("Compare", icon=":material/compare_arrows:", on_click=_compare, args=(selected, picked),
                  disabled=not 1 <= len(picked) <= comparison.MAX_RUNS or picked == [selected],
                  help=f"Compare the picked runs, at most {comparison.MAX_RUNS}; a single one with the open run.")
        st.download_button("Download CSV", lambda: shown.to_csv(index=False), file_name="runs.csv", mime="text/csv",
                           key="overview_runs_csv", icon=":material/download:", on_click="ignore")
    _widgets.definitions(*METRICS, "utility_gate")
    st.caption(f"{len(shown)} of {len(runs)} runs; ▸ is the open one. Scores, verdict and gate are those of the model "
               "that would be handed out: merged, or tested where it was brought. "
               "Twelve terms: its sub-scores, six of forget as 1 − score, then six of retain, so every bar is best "
               "when it is full; a run that lacks one has no bars. Pick rows at their left edge to open or compare "
               "them.")


def _filtered(runs: pd.DataFrame) -> pd.DataFrame:
    tags = sorted({tag for own in runs["tags"] for tag in own})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input("Search", key="overview_text", bind="query-params", width=175,
                             placeholder="title, id, recipe, tag")
        states = st.multiselect("State", [*STATES, "damaged"], key="overview_state", bind="query-params", width=175)
        wanted = st.multiselect("Tags", tags, key="overview_tag", bind="query-params", width=175)
        by = st.selectbox("Sort by", list(frames.SORTS), key="overview_sort", bind="query-params", width=165)
        archived = st.toggle("Show archived", key="overview_archived", bind="query-params")
    return frames.ordered(frames.filtered(runs, text, states, wanted, archived), by)


def _run_columns() -> dict:
    column = st.column_config
    return {
        "chosen": column.TextColumn("", width=20, pinned=True), "id": "Id", "state": "State",
        "name": column.TextColumn("Run", pinned=True, width=230, help="its title, else its id"),
        "tags": column.ListColumn("Tags"), "verdict": "Forgetting",
        "terms": column.BarChartColumn("Twelve terms", y_min=0, y_max=1, width=130,
                                       help=", ".join(metric.label for metric in SUB_SCORES) + "; forget as 1 - score"),
        "mmlu_gate": column.TextColumn("MMLU gate", help=f"at least {MMLU_GATE_SHARE:g} of the base's MMLU"),
        "created": column.DatetimeColumn("Created (UTC)", format="YYYY-MM-DD HH:mm"), "recipe": "Recipe",
        "elapsed_s": number("Wall time", format="duration", help="from creation to the last status, pauses included"),
        "seed": number("Seed", format="%d"),
    }


def _open(name: str) -> None:
    st.query_params[_widgets.RUN_KEY] = name
    st.session_state[COMPARED] = []


def _compare(selected: str, picked: list[str]) -> None:
    st.query_params[_widgets.RUN_KEY], st.session_state[COMPARED] = comparison.from_rows(selected, picked)


# ---- import, export, labels ------------------------------------------------------------------------------------

def import_panel() -> None:
    """A zip file from the browser, or a path on this machine, becomes a run of the store."""
    with st.expander("Import a run", icon=":material/upload:"):
        count = st.session_state.setdefault(UPLOADS, 0)
        upload = st.file_uploader("Zip file of a run folder, as exported here", type="zip",
                                  key=f"overview_upload_{count}")
        path = st.text_input("Or a path on the machine of the dashboard", key="overview_import_path",
                             placeholder="/path/to/run or /path/to/run.zip",
                             help="A run folder or a zip file of one; it is copied and may have any size.")
        st.caption("Weights may be missing: scores, logs and answers are enough to look at a run. Refused are files "
                   "that no run has, above all pickles and code.")
        if not st.button("Import", icon=":material/upload:", key="overview_import"):
            return
        if upload is None and not path.strip():
            st.warning("Choose a zip file or give a path first.", icon=":material/warning:")
            return
        root = _frame.store().root
        try:
            jobs.refuse_if_read_only()
            with st.spinner("Checking and copying"):
                run = archive.import_run(root, upload) if upload else archive.import_path(root, path.strip())
        except InputError as error:
            st.error(_widgets.plain(error), icon=":material/block:")
            return
        st.session_state[UPLOADS] += 1
        _open(run.id)
    st.rerun()


def labels_panel(run: Run, known_tags: list[str]) -> None:
    """Title, tags and archive flag of a run, to change."""
    meta, keys = run.meta(), [f"overview_{name}_{run.id}" for name in ("title", "tags", "archive")]
    with st.popover("Rename, tag, archive", icon=":material/edit:"), st.form(f"overview_labels_{run.id}", border=False):
        st.text_input("Title", meta["title"], key=keys[0], max_chars=frames.LONGEST_NAME, placeholder=run.id)
        st.multiselect("Tags", sorted({*known_tags, *meta["tags"]}), default=meta["tags"], key=keys[1],
                       accept_new_options=True, placeholder="choose or type")
        st.toggle("Archived", meta["archived"], key=keys[2], help="hidden from the table unless one asks for it")
        st.form_submit_button("Save", icon=":material/save:", on_click=_frame.attempt,
                              args=(lambda: _save(run, *(st.session_state[key] for key in keys)),))


def _save(run: Run, title: str, tags: list[str], archived: bool) -> None:
    jobs.refuse_if_read_only()
    try:
        run.write_meta(title=frames.tidy(title), tags=frames.tidy_tags(tags), archived=archived)
    except OSError as error:
        raise InputError(f"run {run.id}", got=error.strerror or str(error), expected="a folder that can be written",
                         fix="nothing was changed") from None


def export_panel(run: Run) -> None:
    """Downloads of the run folder, with and without weights; nothing is packed before the click."""
    with st.popover("Export", icon=":material/download:"):
        everything = [] if run.recorded() else [(True, "Everything, with weights and checkpoints")]
        for weights, words in [(False, "Results and data"), *everything]:
            size = _cache.kept(run, ("size", weights), partial(archive.export_size, run, weights=weights))
            shown = f"{words}: {size / MEBIBYTE:,.1f} MiB before packing"
            if size > MAX_DOWNLOAD:
                st.caption(f"{shown}, too much for a browser. Copy the folder:")
                st.code(str(run.path.resolve()), language=None)
                continue
            st.download_button(shown, lambda weights=weights: _packed(run, weights), file_name=f"{run.id}.zip",
                               mime="application/zip", key=f"overview_export_{weights}", on_click="ignore")
        st.caption("A zip file of the run folder, to import elsewhere. A run that is being written is exported as it "
                   "stands.")


def _packed(run: Run, weights: bool) -> bytes:
    target = io.BytesIO()
    archive.export_run(run, target, weights=weights)
    return target.getvalue()
