"""A run as a story for an audience: eight questions, each with one chart and one finding, by arrow keys."""

import streamlit as st

from analysis import findings, findings_charts
from analysis.findings import Finding
from analysis.findings_charts import Chart
from analysis.findings_parts import Facts
from pages import _cache, _frame, _story_steps, _widgets
from pages._story_steps import Step
from unlearn_core.store import Run

STEP = "step"  # the number of the step, in the address and in the session


def show(run: Run, steps: list[Step]) -> None:
    current = _place(len(steps))
    _bar(current, len(steps))
    step = steps[current]
    found, chart = _step(run, step.key)
    (st.title if st.context.is_embedded else st.header)(found.title, anchor=False)
    if not found.numbers:
        st.info(_widgets.plain(found.text), icon=":material/hourglass_empty:")
        _missing(found)
    elif chart is None:
        st.subheader(_widgets.plain(found.text), anchor=False)
    else:
        _widgets.chart(chart.figure, chart.table, key=f"story_{step.key}", title=_widgets.plain(found.text),
                       caption=chart.caption, alt=chart.alt)
    _how(run, step, found)


def _step(run: Run, key: str) -> tuple[Finding, Chart | None]:
    """A finding and its chart; what they read of the run is shared by all steps."""
    files = list(run.adapter_weights().values())
    with st.spinner("Reading the run", show_time=True):
        facts = _cache.kept(run, "facts", lambda: Facts(run), files)
        return (_cache.kept(run, ("finding", key), lambda: findings.FOUND[key](facts), files),
                _cache.kept(run, ("story chart", key), lambda: findings_charts.chart(facts, key), files))


def _place(count: int) -> int:
    """The step, from 0, that the address names, else the one that was shown last."""
    wanted = st.query_params.get(STEP, st.session_state.get(STEP, "1"))
    place = min(max(int(wanted), 1), count) - 1 if wanted.isascii() and wanted.isdecimal() else 0
    _go(place)
    return place


def _go(place: int) -> None:
    st.session_state[STEP] = st.query_params[STEP] = str(place + 1)


def _bar(current: int, count: int) -> None:
    """Back, a button for each step, forward, and the way into and out of the presentation.

    Buttons, since in a group of choices the arrow keys would move within it.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.button("Previous", key="story_previous", shortcut="Left", disabled=current == 0, on_click=_go,
                  args=(current - 1,))
        for place in range(count):
            st.button(f"{place + 1}", key=f"story_step_{place + 1}", on_click=_go, args=(place,),
                      type="primary" if place == current else "secondary")
        st.button("Next", key="story_next", shortcut="Right", disabled=current == count - 1, on_click=_go,
                  args=(current + 1,))
        number = str(current + 1)
        if st.context.is_embedded:
            st.link_button("In the dashboard", _widgets.address("story", step=number), icon=":material/open_in_new:")
        else:
            st.link_button("Present", _widgets.address("story", step=number, embed="true"),
                           icon=":material/present_to_all:",
                           help="The story alone, in a tab of its own: no sidebar, no header. F11 fills the screen.")


def _how(run: Run, step: Step, found: Finding) -> None:
    with _widgets.folded("Show me how", key="story_how") as opened:
        if opened.open:
            st.markdown(step.how)
            _widgets.command("\n".join(step.commands(run)))
            if found.numbers:
                _missing(found)
    query = step.view | {_widgets.RUN_KEY: run.id}
    if st.context.is_embedded:  # what it leads to keeps its own frame, and the story its place
        st.link_button(step.label, _widgets.address(step.page, **step.view), icon=":material/open_in_new:")
    else:
        st.page_link(f"pages/{step.page}.py", label=step.label, icon=":material/arrow_outward:", query_params=query)


def _missing(found: Finding) -> None:
    if found.todo:
        st.caption("This measures what is missing:")
        _widgets.command(found.todo)


run = _frame.selected_run()
with _frame.bad_input_shown():
    brought = bool(run.brought())
_frame.part(show, run, _story_steps.steps(brought))
if brought:
    st.caption("This run brought its models, so the story leaves out training and merging.")
