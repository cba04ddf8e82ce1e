"""What works on a run: the state strip, stopping and going on, forms that have something measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import streamlit as st

from analysis import progress, weights
from pages._frame import attempt, read_only, show_refusal, store
from pages._widgets import RUN_KEY, command, plain
from unlearn_core import jobs, launching, recorded
from unlearn_core.errors import InputError
from unlearn_core.store import Run

LIVE = ("queued", "running")
STRIPS = {
    "queued": (st.info, ":material/hourglass_empty:", "Queued"),
    "running": (st.info, ":material/play_circle:", "Running"),
    "interrupted": (st.warning, ":material/pause_circle:", "Interrupted: its process no longer lives"),
    "trained": (st.info, ":material/model_training:", "Trained, but not merged or scored yet"),
    "failed": (st.error, ":material/error:", "Failed"),
    "cancelled": (st.warning, ":material/cancel:", "Cancelled"),
}


def status_strip() -> None:
    """State of the chosen run while it is anything but finished, looked at every two seconds while it lives; and that
    a recording is one."""
    show_refusal()
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
