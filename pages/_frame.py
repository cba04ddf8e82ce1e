"""What stands around every page: the chosen run, what may be done with it, and errors as one line."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from analysis import theme
from pages import _cache
from pages._widgets import RUN_KEY, command, plain
from unlearn_core import jobs
from unlearn_core.errors import InputError
from unlearn_core.store import DEFAULT_RUNS_DIR, Run, Store

FRAMED = "framed"  # set while app.py stands around the page
REFUSED = "refused"  # why the last action was not carried out, until it is shown
LISTING = "listing"  # the runs and problems that the frame found, for the page
EXAMPLE = "example: "  # before the name of a recording


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
        show_refusal()
        with bad_input_shown():
            show(*args, **settings)
    st.fragment(shown)()


def show_refusal() -> None:
    """Why the last action was refused, once."""
    refused = st.session_state.pop(REFUSED, None)
    if refused:
        st.error(plain(refused), icon=":material/block:")
