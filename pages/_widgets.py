"""What every page uses: the run picker, the state strip, and charts and tables with caption, alt text and CSV."""

from __future__ import annotations

import os
import re
import runpy
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from unlearn_core.errors import InputError
from unlearn_core.store import DEFAULT_RUNS_DIR, Run, Store

RUN_KEY = "run"  # also the name of the query parameter
FRAMED = "framed"  # set while app.py stands around the page
LISTING = "listing"  # the runs and problems that the frame found, for the page
MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")  # ASCII punctuation: all that Markdown can give a meaning
NOT_MEASURED = "not measured"
GAP_WIDTH = 108  # pixels that NOT_MEASURED takes in a table
STRIPS = {
    "running": (st.info, ":material/play_circle:", "Running"),
    "interrupted": (st.warning, ":material/pause_circle:", "Interrupted: its process no longer lives"),
    "trained": (st.info, ":material/model_training:", "Trained, but not merged or scored yet"),
    "failed": (st.error, ":material/error:", "Failed"),
    "cancelled": (st.warning, ":material/cancel:", "Cancelled"),
}


def plain(text: object) -> str:
    """Text that is not our own, on one line and escaped, so that Markdown shows it as it is and fetches nothing."""
    return MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


# ---- the run ---------------------------------------------------------------------------------------------------

def store() -> Store:
    """The folder of runs: $LETHE_RUNS, else `runs`."""
    return Store(os.environ.get("LETHE_RUNS", DEFAULT_RUNS_DIR))


def run_picker() -> None:
    """Sidebar choice of the run, kept in the address as ?run=ID, so that a link reopens the same view."""
    st.session_state[FRAMED] = True
    runs, _ = st.session_state[LISTING] = store().scan()
    ids = [run.id for run in runs]
    # `bind="query-params"` would drop the run from the address whenever it is the default, which moves with time.
    wanted = st.query_params.get(RUN_KEY)
    known = [name for name in (wanted, st.session_state.get(RUN_KEY), *ids) if name in ids]
    if wanted is not None and wanted not in ids:
        st.warning(f"There is no readable run {plain(wanted)} in {plain(store().root)}.", icon=":material/warning:")
    if known:
        st.session_state[RUN_KEY] = st.query_params[RUN_KEY] = known[0]
    st.sidebar.selectbox("Run", ids, key=RUN_KEY, placeholder="no runs yet", disabled=not ids,
                         help="The run that every page shows; the page's address names it.",
                         on_change=lambda: st.query_params.update({RUN_KEY: st.session_state[RUN_KEY]}))


def listing() -> tuple[list[Run], list[str]]:
    """`Store.scan` as the frame found it in this rerun."""
    return st.session_state[LISTING]


def selected_run() -> Run:
    """The chosen run; on an empty store the page says what to do and ends here. Every page calls this first."""
    _ensure_frame()
    name = st.session_state.get(RUN_KEY)
    if name is None:
        _explain_empty_store()
        st.stop()
    with bad_input_shown():
        return store().open(name)
    return st.stop()


def _ensure_frame() -> None:
    """Run app.py where a page was started without it.

    Streamlit's older discovery of a folder named `pages` does so for the first request to a fresh server if that is
    a link to a page; it ends with the first `st.navigation`.
    """
    if not st.session_state.pop(FRAMED, False):
        runpy.run_path(str(Path(__file__).parent.parent / "app.py"))
        st.stop()


def show_problems(problems: list[str]) -> None:
    """One warning for each folder that cannot be read."""
    for problem in problems:
        st.warning(f"Not readable: {plain(problem)}", icon=":material/warning:")


def _explain_empty_store() -> None:
    show_problems(listing()[1])
    st.info(f"There are no runs in {plain(store().root)} yet. Make one, then reload this page:", icon=":material/info:")
    st.code("make demo", language="bash")
    st.caption("Creates a small world, trains a model on it, unlearns it twice, merges and scores: no download, no "
               "GPU, a few minutes. The same without make:")
    st.code("python -m unlearn_core run demo", language="bash")
    st.caption("Runs kept elsewhere: start the dashboard with LETHE_RUNS=/path/to/runs.")


@contextmanager
def bad_input_shown() -> Iterator[None]:
    """Show a damaged file as the one line that names it, and end the page."""
    try:
        yield
    except InputError as error:
        st.error(plain(error), icon=":material/broken_image:")
        st.stop()


def status_strip() -> None:
    """State of the chosen run while it is anything but finished; looks again every two seconds while it runs."""
    name = st.session_state.get(RUN_KEY)
    if name is None:
        return
    try:
        run = store().open(name)
        running = run.status()["state"] == "running"
        st.fragment(_strip, run_every=2 if running else None)(run, running)
    except InputError as error:
        st.error(plain(error), icon=":material/broken_image:")


def _strip(run: Run, was_running: bool) -> None:
    try:
        status = run.status()
    except InputError as error:  # here and not around the fragment, which looks again by itself
        st.error(plain(error), icon=":material/broken_image:")
        return
    if was_running and status["state"] != "running":
        st.rerun()  # the whole page: results have come
    if status["state"] not in STRIPS:
        return
    show, icon, words = STRIPS[status["state"]]
    step, total = status["step"], status["total"]
    stage = "" if status["state"] == "trained" else plain(status["stage"])
    parts = [words, stage, f"step {step} of {total}" if total else "", plain(status["message"]),
             "" if was_running else "continue it with:"]
    show(" · ".join(part for part in parts if part), icon=icon)
    if was_running:
        st.progress(min(step / total, 1.0) if total else 0.0)
        if st.button("Show what is there by now", icon=":material/refresh:"):
            st.rerun()
    else:
        st.code(f"python -m unlearn_core run --resume {shlex.quote(run.id)}", language="bash", wrap_lines=True)


# ---- charts and tables -----------------------------------------------------------------------------------------

def chart(figure: go.Figure, table: pd.DataFrame, *, key: str, title: str, caption: str, alt: str) -> None:
    """A figure under the title that says what to look for, its caption, and the table behind it as CSV."""
    st.subheader(title)
    st.plotly_chart(figure, width="stretch", key=f"{key}_chart", alt=alt, config={"displaylogo": False})
    st.caption(caption)
    with st.expander("Table behind this chart"):
        show_table(table, key=key, alt=f"Table behind: {title}")


def show_table(table: pd.DataFrame, *, key: str, alt: str, columns: dict | None = None,
               order: tuple[str, ...] | None = None) -> None:
    """A table in which what is missing says so, with a button that downloads all of its columns as CSV."""
    st.dataframe(table, width="stretch", hide_index=True, placeholder=NOT_MEASURED, column_config=columns,
                 column_order=order, alt=alt)
    st.download_button("Download CSV", table.to_csv(index=False), file_name=f"{key}.csv", mime="text/csv",
                       key=f"{key}_csv", icon=":material/download:", on_click="ignore")
