"""What every page uses: the run picker, the state strip, and charts and tables with caption, alt text and CSV."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis import glossary, progress, theme, weights
from pages import _cache
from unlearn_core import jobs, launching, recorded
from unlearn_core.errors import InputError
from unlearn_core.store import DEFAULT_RUNS_DIR, Run, Store

RUN_KEY = "run"  # also the name of the query parameter
FRAMED = "framed"  # set while app.py stands around the page
REFUSED = "refused"  # why the last action was not carried out, until it is shown
LISTING = "listing"  # the runs and problems that the frame found, for the page
MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")  # ASCII punctuation: all that Markdown can give a meaning
AUTOLINK = re.compile(r"(?<=[\w.+-]@)(?=\w)|(?<=:)(?=//)|(?<=www)(?=\.)")  # where what becomes a link can be broken
WORD_JOINER = "\u2060"  # has no width
NOT_MEASURED = "not measured"
EXAMPLE = "example: "  # before the name of a recording
GAP_WIDTH = 108  # pixels that NOT_MEASURED takes in a table
LIVE = ("queued", "running")
STRIPS = {
    "queued": (st.info, ":material/hourglass_empty:", "Queued"),
    "running": (st.info, ":material/play_circle:", "Running"),
    "interrupted": (st.warning, ":material/pause_circle:", "Interrupted: its process no longer lives"),
    "trained": (st.info, ":material/model_training:", "Trained, but not merged or scored yet"),
    "failed": (st.error, ":material/error:", "Failed"),
    "cancelled": (st.warning, ":material/cancel:", "Cancelled"),
}


def plain(text: object) -> str:
    """Text that is not our own, on one line, so that Markdown shows it as it is, links nowhere and fetches nothing.

    Signs are escaped. Addresses would become links all the same, so an invisible character breaks them.
    """
    return MARKDOWN.sub(r"\\\1", AUTOLINK.sub(WORD_JOINER, " ".join(str(text).split())))


# ---- the run ---------------------------------------------------------------------------------------------------

def store() -> Store:
    """The folder of runs, $LETHE_RUNS or `runs`, and behind it the recorded examples, $LETHE_EXAMPLES or the project's
    own."""
    examples = os.environ.get("LETHE_EXAMPLES", Path(__file__).parent.parent / "examples")
    return Store(os.environ.get("LETHE_RUNS", DEFAULT_RUNS_DIR), examples or None)


def run_picker() -> None:
    """Sidebar choice of the run, kept in the address as ?run=ID, so that a link reopens the same view."""
    st.session_state[FRAMED] = True
    where = store()
    runs, _ = st.session_state[LISTING] = _cache.listing(where)
    ids, names = [run.id for run in runs], {run.id: f"{EXAMPLE}{_title(run)}" for run in runs if where.is_example(run)}
    # `bind="query-params"` would drop the run from the address whenever it is the default, which moves with time.
    wanted = st.query_params.get(RUN_KEY)
    known = [name for name in (wanted, st.session_state.get(RUN_KEY), *ids) if name in ids]
    if wanted is not None and wanted not in ids:
        st.warning(f"There is no readable run {plain(wanted)} in {plain(where.root)}.", icon=":material/warning:")
    if known:
        st.session_state[RUN_KEY] = st.query_params[RUN_KEY] = known[0]
    st.sidebar.selectbox("Run", ids, key=RUN_KEY, placeholder="no runs yet", disabled=not ids,
                         format_func=lambda name: names.get(name, name),
                         help="The run that every page shows; the page's address names it.",
                         on_change=lambda: st.query_params.update({RUN_KEY: st.session_state[RUN_KEY]}))


def _title(run: Run) -> str:
    """Of an example: its title, of which there is more to see than of a long id."""
    try:
        return run.meta()["title"] or run.id
    except InputError:  # said where the run is shown
        return run.id


def listing() -> tuple[list[Run], list[str]]:
    """`Store.scan` as the frame found it in this rerun."""
    return st.session_state[LISTING]


def own_runs() -> list[Run]:
    """The readable runs that were made here, without the examples."""
    where = store()
    return [run for run in listing()[0] if not where.is_example(run)]


def selected_run() -> Run:
    """The chosen run; on an empty store the page says what to do and ends here.

    Every page calls this first, or `frame` if it has something to show without a run.
    """
    frame()
    name = st.session_state.get(RUN_KEY)
    if name is None:
        explain_empty_store()
        st.stop()
    with bad_input_shown():
        return store().open(name)
    return st.stop()


def trained_run(what: str) -> Run:
    """`selected_run`, for a page about training or adapters. On a run that brought its models the page says that "there
    `what`", such as "are no losses to show", and ends here."""
    run = selected_run()
    with bad_input_shown():
        brought = run.brought()
    if brought:
        st.info(f"This run brought its models for evaluation ({', '.join(map(theme.short_label, brought))}): nothing "
                f"was trained or merged here, so there {what}.", icon=":material/inventory_2:")
        st.page_link("pages/overview.py", label="Its scores", icon=":material/dashboard:")
        st.stop()
    return run


def frame() -> None:
    """Run app.py where a page was started without it.

    Streamlit's older discovery of a folder named `pages` does so for the first request to a fresh server if that is
    a link to a page; it ends with the first `st.navigation`.
    """
    if not st.session_state.pop(FRAMED, False):
        runpy.run_path(str(Path(__file__).parent.parent / "app.py"))
        st.stop()


def read_only() -> bool:
    """Whether pages hide whatever launches or writes (LETHE_READ_ONLY)."""
    return jobs.read_only()


def may_change(run: Run) -> bool:
    """Whether pages offer to change the run or to measure something on it: never on a recording."""
    return not read_only() and not run.recorded()


def typed(run: Run) -> str:
    """How a run is named in a command that reads it: by its id, a recording by its folder."""
    return os.path.relpath(run.path) if store().is_example(run) else run.id


def attempt(action: Callable[[], object]) -> None:
    """Do something on a person's behalf, from a button's callback; bad input is kept and shown above the page."""
    try:
        action()
    except InputError as error:
        st.session_state[REFUSED] = str(error)


def show_problems(problems: list[str]) -> None:
    """One warning for each folder that cannot be read."""
    for problem in problems:
        st.warning(f"Not readable: {plain(problem)}", icon=":material/warning:")


def explain_empty_store() -> None:
    show_problems(listing()[1])
    st.info(f"There are no runs in {plain(store().root)} yet. Make one, then reload this page:", icon=":material/info:")
    command("make demo")
    st.caption("Creates a small world, trains a model on it, unlearns it twice, merges and scores: no download, no "
               "GPU, a few minutes. The same without make:")
    command("python -m unlearn_core run demo")
    st.caption("Runs kept elsewhere: start the dashboard with LETHE_RUNS=/path/to/runs.")


@contextmanager
def bad_input_shown() -> Iterator[None]:
    """Show a damaged file as the one line that names it, and end the page."""
    try:
        yield
    except InputError as error:
        st.error(plain(error), icon=":material/broken_image:")
        st.stop()


def part(show: Callable[..., None], *args: object, **settings: object) -> None:
    """A part of the page that its own widgets draw again alone, which is fast; a damaged file ends it with one line.

    What it changes elsewhere on the page takes an `st.rerun()`. Why its last action was refused stands above it.
    """
    def shown() -> None:
        _show_refusal()
        with bad_input_shown():
            show(*args, **settings)
    st.fragment(shown)()


def status_strip() -> None:
    """State of the chosen run while it is anything but finished, looked at every two seconds while it lives; and that
    a recording is one."""
    _show_refusal()
    name = st.session_state.get(RUN_KEY)
    if name is None:
        return
    try:
        run = store().open(name)
        _recorded_strip(run)
        state, job = run.status()["state"], run.job()
        live = state in LIVE
        st.fragment(_strip, run_every=2 if live else None)(run, live)
        # Not in the fragment: a click that meets the fragment's own next run could get lost.
        if live:
            _live_controls(run)
        elif state in STRIPS:
            _resume_controls(run, job)
    except InputError as error:
        st.error(plain(error), icon=":material/broken_image:")


def _show_refusal() -> None:
    refused = st.session_state.pop(REFUSED, None)
    if refused:
        st.error(plain(refused), icon=":material/block:")


def _recorded_strip(run: Run) -> None:
    if about := run.recorded():
        day = f"{datetime.fromisoformat(about['when']):%d %B %Y}"
        small = ", small in scale" if about["sizes"].get("parameters", 0) < recorded.SMALL else ""
        st.info(f"**Recorded example**, {day}{small}: look at everything, start nothing on it. A live one of your own: "
                "`make demo`.", icon=":material/history:")
        st.caption(f"{plain(about['scale'])} Made by {plain(about['again'])}; recorded by {plain(about['command'])}.")


def _strip(run: Run, was_live: bool) -> None:
    try:
        status, job = run.status(), run.job()
        place = _place_in_queue(run, status)
    except InputError as error:  # here and not around the fragment, which looks again by itself
        st.error(plain(error), icon=":material/broken_image:")
        return
    if was_live != (status["state"] in LIVE):
        st.rerun()  # the whole page: results have come, or a job has begun
    if status["state"] in STRIPS:
        show, icon, words = STRIPS[status["state"]]
        show(" · ".join(filter(None, [words, place, *_stage(status, job), plain(status["message"])])), icon=icon)
    elif job and not job["lives"] and job["exit_code"] and not job["cancelled"]:
        st.error(f"The last job on this run failed: {jobs.describe_exit(job['exit_code'])}. "
                 f"{plain(run.log_tail(1))}", icon=":material/error:")
    if status["state"] == "running":
        st.progress(min(status["step"] / status["total"], 1.0) if status["total"] else 0.0)


def _stage(status: dict, job: dict | None) -> list[str]:
    """Stage, step, time spent and time left, as far as known."""
    if status["state"] in ("queued", "trained"):
        return []
    parts = [plain(status["stage"]), f"step {status['step']} of {status['total']}" if status["total"] else ""]
    if status["state"] == "running" and status.get("since"):
        spent, left = progress.seconds_since(status["since"]), progress.remaining_seconds(status)
        parts.append(progress.duration(spent) + (f" < {progress.duration(left)}" if left is not None else ""))
    return parts


def _place_in_queue(run: Run, status: dict) -> str:
    if status["state"] != "queued":
        return ""
    device = run.job()["device"]
    waiting, working = [other.id for other in jobs.queue(store(), device)], jobs.holder(store(), device)
    place = f"number {waiting.index(run.id) + 1} of {len(waiting)} for {device}" if run.id in waiting else device
    return place + (f", which {plain(working.id)} uses" if working and working.id != run.id else "")


def _live_controls(run: Run) -> None:
    with st.container(horizontal=True):
        if not read_only():
            # A mere "Stop" stands in Streamlit's header, too, where it only ends the drawing of the page.
            st.button("Stop the run", icon=":material/stop_circle:", key="strip_stop", on_click=attempt,
                      args=(lambda: jobs.stop(run),), help="Ends its processes, at once if they do not end by "
                      f"themselves within {jobs.GRACE_S:g} s. What is trained so far stays and can be resumed.")
        if st.button("Show what is there by now", icon=":material/refresh:", key="strip_refresh"):
            st.rerun()


def _resume_controls(run: Run, job: dict | None) -> None:
    processes = launching.needed(run) or 1
    if not read_only():
        device = job["device"] if job else jobs.devices()[0].name
        with st.container(horizontal=True):
            st.button("Resume", icon=":material/resume:", key="strip_resume", type="primary", disabled=processes > 1,
                      on_click=attempt, args=(lambda: jobs.resume(run, device=device),),
                      help=f"Goes on at the last checkpoint, with the same recipe, on {device}.")
            if not run.brought() and st.button(
                    "Start fresh from these weights", icon=":material/restart_alt:", key="strip_fresh",
                    help="A new run that begins with this one's data and weights, at step 0 with a fresh optimizer. "
                         "Its recipe can be changed before it starts."):
                st.switch_page("pages/train.py", query_params={RUN_KEY: run.id, "train_view": "New run",
                                                                 "train_source": run.id})
    st.caption("Or in a terminal:" if processes == 1 else
               f"This run shares each step among {processes} processes, so it goes on in a terminal:")
    command(launching.command_line(["run", "--resume", run.id], processes))


# ---- charts and tables -----------------------------------------------------------------------------------------

def chart(figure: go.Figure, table: pd.DataFrame, *, key: str, title: str, caption: str, alt: str,
          on_select: Callable[[], None] | None = None, terms: Sequence[str] = ()) -> None:
    """A figure under the title that says what to look for, its caption, the table behind it as CSV, and definitions of
    the scores in that table and of further `terms`, by their keys in the glossary.

    `on_select`: called after a click on a point, which `st.session_state` then has under `<key>_chart`.
    """
    st.subheader(title)
    selection = {"on_select": on_select, "selection_mode": "points"} if on_select else {}
    st.plotly_chart(figure, width="stretch", key=f"{key}_chart", alt=alt, config={"displaylogo": False}, **selection)
    st.caption(caption)
    definitions(*glossary.metrics_in(table), *terms)
    with folded("Table behind this chart", key=f"{key}_table") as opened:
        if opened.open:
            _frame(table, alt=f"Table behind: {title}")
            _download(table, key)


def folded(label: str, *, key: str, unfold: bool = False) -> DeltaGenerator:
    """An expander whose contents the page makes only while `.open`, since what is folded up costs time all the same.

    `unfold`: open it in this rerun, whatever the reader did with it.
    """
    if unfold:
        st.session_state[key] = True
    return st.expander(label, key=key, on_change="rerun")


def show_table(table: pd.DataFrame, *, key: str, alt: str, columns: dict | None = None,
               order: tuple[str, ...] | None = None, terms: Sequence[str] = ()) -> None:
    """A table in which what is missing says so, with a button that downloads all of its columns as CSV, and definitions
    of its scores and of further `terms`."""
    _frame(table, alt=alt, columns=columns, order=order)
    _download(table, key)
    definitions(*glossary.metrics_in(table), *terms)


def _frame(table: pd.DataFrame, *, alt: str, columns: dict | None = None, order: tuple[str, ...] | None = None) -> None:
    st.dataframe(table, width="stretch", hide_index=True, placeholder=NOT_MEASURED, column_config=columns,
                 column_order=order, alt=alt)


def _download(table: pd.DataFrame, key: str) -> None:
    st.download_button("Download CSV", lambda: table.to_csv(index=False), file_name=f"{key}.csv", mime="text/csv",
                       key=f"{key}_csv", icon=":material/download:", on_click="ignore")


def command(lines: str) -> None:
    """Something to type in a terminal, to copy with a click. Without colours, which are too pale on our background."""
    st.code(lines, language=None, wrap_lines=True)


def show_numbers(table: pd.DataFrame, names: list[str], *, key: str, alt: str, terms: Sequence[str] = ()) -> None:
    """A table of numbers of very different sizes, one column per name, its index in front."""
    table = table.set_axis(names, axis=1).rename_axis("quantity").reset_index()
    formats = {name: st.column_config.NumberColumn(format="%.5g") for name in names}
    show_table(table, key=key, alt=alt, columns=formats, terms=terms)


# ---- definitions -----------------------------------------------------------------------------------------------

def address(path: str, **query: str) -> str:
    """A link to a page for Markdown, on the chosen run; it opens in a tab of its own. `path` "" is the Overview."""
    run = st.session_state.get(RUN_KEY)
    return f"{path or './'}?{urlencode(query | ({RUN_KEY: run} if run else {}))}"


def defined(help: str, term: str) -> str:
    """A help text with a link to the definition of a term of the glossary.

    The keyboard reaches no link in a help text, so `definitions` stand nearby.
    """
    return f"{help}. [Definition]({address('method', term=glossary.find(term).key)})"


def definitions(*terms: str) -> None:
    """A line that unfolds to what each of these terms of the glossary is, with a link to all about it."""
    if terms:
        entries = [glossary.find(term) for term in dict.fromkeys(terms)]
        # Not a popover: the keyboard gets into none.
        with st.expander("Definitions", icon=":material/menu_book:", type="compact"):
            st.markdown("\n".join(f"- [{entry.name}]({address('method', term=entry.key)}): {entry.text}"
                                  for entry in entries))


# ---- switches and jobs ----------------------------------------------------------------------------------------

def row() -> DeltaGenerator:
    """A line of switches."""
    return st.container(horizontal=True, vertical_alignment="bottom", gap="medium")


def device(key: str) -> str:
    """Choice of the device that a job runs on."""
    found = {device.name: device.label for device in jobs.devices()}
    return st.selectbox("Device", list(found), format_func=found.get, key=key, persist_state="session")


def busy(run: Run) -> bool:
    """Whether a process works on the run or waits to."""
    return run.status()["state"] in LIVE


def job_form(run: Run, needs: Sequence[str], form: Callable[[], None], *, key: str, first: str, again: str,
             measured: bool) -> None:
    """A form that has something of a run measured, unfolded until it was; or why it cannot be: adapters that it
    `needs` are absent, or a process works on the run. Its label is `first` or, once measured, `again`."""
    if run.recorded():
        if not measured:
            st.caption("It was not measured before the run was recorded, and a recording has no weights.")
        return
    absent = [model for model in needs if model not in run.adapter_weights()]
    if absent:
        if not measured:
            st.caption(f"It cannot be made: this run has no adapter of {weights.named(absent)}. A recorded run comes "
                       "without weights.")
        return
    if busy(run):
        st.caption("A process is working on this run, or waits to; this can be measured when it is done. What it has "
                   "measured by then is shown above.")
        return
    with st.expander(again if measured else first, expanded=not measured, key=key, on_change="rerun") as opened:
        if opened.open:
            form()
