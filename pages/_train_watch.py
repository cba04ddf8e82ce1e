"""Watching a run: how it stands, its losses as they are logged, memory, the end of its log, and who waits."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import live, training
from analysis.theme import short_label
from pages import _frame, _train_start, _widgets, _work
from unlearn_core import jobs
from unlearn_core.errors import InputError
from unlearn_core.store import Run

LOGS = "train_logs"  # (run id, its readers) in the session
TICK_S = 2
LOG_LINES = 20


def show(run: Run) -> None:
    """The chosen run; looks again by itself while a process works on it or waits to."""
    with _frame.bad_input_shown():
        status, brought = run.status(), bool(run.brought())
    is_live = status["state"] in _work.LIVE
    _say_how_it_ended(run, status, brought)
    if not brought:  # there is nothing to train again
        _actions(run, is_live)
    st.fragment(_waiting, run_every=TICK_S if is_live else None)()
    st.fragment(_live, run_every=TICK_S if is_live else None)(run)


def _say_how_it_ended(run: Run, status: dict, brought: bool) -> None:
    """What the strip above does not say: that it is finished, and why it failed."""
    if status["state"] == "finished":
        with st.container(horizontal=True, vertical_alignment="center"):
            st.success("Finished: every model that was brought is scored." if brought else
                       "Finished: every model is trained and scored.", icon=":material/check_circle:")
            st.page_link("pages/overview.py", label="Scores", icon=":material/dashboard:")
            if not brought:
                st.page_link("pages/loss.py", label="Loss", icon=":material/show_chart:")
    if status["state"] == "failed":
        code = (run.job() or {}).get("exit_code")
        st.markdown(f"**Why?** It ended with {'an exit code that was not recorded' if code is None else ''}"
                    f"{jobs.describe_exit(code) if code is not None else ''}; the last lines of its log are below.")


def _actions(run: Run, is_live: bool) -> None:
    if _frame.read_only():
        return
    with st.container(horizontal=True):
        st.button("Clone its recipe", icon=":material/content_copy:", on_click=_train_start.clone, args=(run.id,),
                  help="Opens the form with this run's recipe, to change it and start a new run with new weights.")
        finished = run.status()["state"] == "finished"  # otherwise the strip above offers it
        if not is_live and finished and not run.recorded():
            st.button("Start fresh from these weights", icon=":material/restart_alt:", key="train_fresh",
                      on_click=_train_start.clone, args=(run.id, _train_start.BASE),
                      help="Opens the form for a new run that begins with this one's data and weights, at step 0 with "
                           "a fresh optimizer.")


# ---- the queue -------------------------------------------------------------------------------------------------

def queue() -> pd.DataFrame:
    """One row per run that works or waits: device, place ("works now", 1, 2, ...), run, since."""
    store, rows = _frame.store(), []
    for device in jobs.devices():
        holder = jobs.holder(store, device.name)
        rows += [(device.name, "works now", holder.id)] if holder else []
        rows += [(device.name, f"{place} in the queue", run.id)
                 for place, run in enumerate(jobs.queue(store, device.name), 1)]
    return pd.DataFrame(rows, columns=["device", "place", "run"])


def _waiting() -> None:
    try:
        table = queue()
    except InputError as error:
        st.error(_widgets.plain(error), icon=":material/broken_image:")
        return
    if len(table) > 1:
        st.subheader("Who has the device, and who waits for it?")
        st.dataframe(table, width="stretch", hide_index=True, alt="Runs that work or wait, by device")


# ---- live ------------------------------------------------------------------------------------------------------

def _live(run: Run) -> None:
    try:
        rows = {model: log.read() for model, log in _logs(run).items()}
        memory, tail = jobs.memory_mb(run), run.log_tail(LOG_LINES)
        seed, brought = run.recipe().seed, bool(run.brought())
    except InputError as error:  # here and not around the fragment, which looks again by itself
        st.error(_widgets.plain(error), icon=":material/broken_image:")
        return
    steps = live.table(rows)
    _numbers(rows, memory)
    if steps.empty:
        st.info("This run brought its models for evaluation: nothing is trained in it." if brought else
                "No training step is logged yet.", icon=":material/hourglass_empty:")
    else:
        _charts(run.id, steps, seed)
    st.subheader("What did the process say last?")
    st.code(tail or "nothing yet", language=None, wrap_lines=True, height=260 if tail.count("\n") > 8 else "content")


def _logs(run: Run) -> dict[str, live.StepLog]:
    """The readers of a run, kept in the session so that each byte is read once."""
    name, logs = st.session_state.get(LOGS, (None, None))
    if name != str(run.path):
        logs = live.logs(run)
        st.session_state[LOGS] = str(run.path), logs
    return logs


def _numbers(rows: dict[str, list[dict]], memory: float | None) -> None:
    model = next((model for model in reversed(live.MODELS) if rows[model]), None)
    last = rows[model][-1] if model else {}
    with st.grid(4, min_column_width=210):
        st.metric("Last step", f"{short_label(model)}: {last['step']:,}" if model else _widgets.NOT_MEASURED)
        st.metric("Loss", _number(last.get("loss"), ".4g"))
        st.metric("Tokens per second", _number(last.get("tokens_per_second"), ",.0f"))
        st.metric("Memory now", _number(memory, ",.0f", " MiB"),
                  help="of the run's processes: on the GPU where it uses one, else of the machine")


def _number(value: float | None, form: str, unit: str = "") -> str:
    return _widgets.NOT_MEASURED if value is None else f"{value:{form}}{unit}"


def _charts(run_id: str, steps: pd.DataFrame, seed: int) -> None:
    st.subheader("Losses, speed and memory, step by step")
    for panels in (live.LOSSES, live.MACHINE):  # apart, so that a new chart of one moves none of the other
        _grid(run_id, steps, panels)
    counts = ", ".join(f"{short_label(model)}: {count} steps" for model, count in
                       steps.groupby("model", sort=False).size().items())
    st.caption(f"{counts}; seed {seed}. As logged: unweighted terms, means over a step's micro-batches, no smoothing; "
               f"at most {training.MAX_POINTS:,} points a line with its extremes. {live.HOW_TO_ZOOM} More on the Loss "
               "page.")
    with _widgets.folded("Table behind these charts", key="train_live_table") as opened:
        if opened.open:
            _widgets.show_table(steps, key="train_live_steps", alt="Logged steps of each model")


def _grid(run_id: str, steps: pd.DataFrame, panels: dict) -> None:
    """The charts that have points.

    Streamlit drops the zoom of a chart with every new point, unless the zoom is a selection that it tells us about.
    """
    with st.grid(2, min_column_width=330) as grid:
        for (column, models), (title, axis) in panels.items():
            points = live.panel(steps, column, models)
            if len(points):
                with grid.cell():
                    st.markdown(f"**{title}**")
                    st.altair_chart(live.chart(points, models, axis), width="stretch", alt=title, on_select="rerun",
                                    selection_mode=live.SELECTION,
                                    key=f"train_live_{run_id}_{column}_{'base' if models == ('base',) else 'models'}")
