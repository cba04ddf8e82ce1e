"""The same run from a terminal: its launch line for one process or several, its TOML file, and saving the recipe."""

from __future__ import annotations

import streamlit as st

from analysis import form, plan
from analysis.theme import short_label
from pages import _frame, _train_start, _widgets
from unlearn_core import launching
from unlearn_core import recipe as recipes
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.vocabulary import UNLEARNED

DEVICE, NAME = "train_device", "train_save_as"
PROCESSES, SAME = "train_processes", "train_same_updates"


def show(recipe: Recipe, source: Run | None, adapters: bool) -> None:
    """The lines and the file, folded up."""
    with _widgets.folded("Command and TOML: the same run from a terminal, and saving this recipe",
                         key="train_files") as opened:
        if opened.open:
            _lines(recipe, form.weights_arguments(source.id if source else "", adapters))
            _file(recipe)


def _lines(recipe: Recipe, weights: list[str]) -> None:
    processes, shared = _processes(recipe)
    start, device = st.session_state[_train_start.START], form.device_for(st.session_state[DEVICE], processes)
    runs_dir = str(_frame.store().root)
    if start in plan.bundled():
        st.caption("The bundled recipe with what you changed in it:")
        _line(form.short_command(start, shared, device, runs_dir, weights), processes)
    st.caption("With the file below:")
    _line([*form.file_command(recipe, device, runs_dir, weights), *form.sets(recipe, shared)], processes)


def _line(arguments: list[str], processes: int) -> None:
    _widgets.command(launching.command_line(arguments, processes))


def _processes(recipe: Recipe) -> tuple[int, Recipe]:
    """How many processes are to share the run, and the recipe that they then run."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        processes = st.number_input("Processes", 1, 64, 1, key=PROCESSES, persist_state="session", width=150,
                                    help="Several share each step, each with a model of its own: one for each GPU, "
                                         "or on a CPU to try it out. The button above always starts one.")
        even = form.with_same_updates(recipe, processes)
        same = processes > 1 and st.toggle(
            "As many updates as one process makes", key=SAME, persist_state="session", disabled=even is None,
            help="Divides gradient accumulation by the number of processes, where it can be divided.")
    shared = even if same and even is not None else recipe
    if processes > 1:
        st.caption(_how_they_share(recipe, shared, processes))
    return processes, shared


def _how_they_share(recipe: Recipe, shared: Recipe, processes: int) -> str:
    counts = []
    for name in UNLEARNED:
        alone, together = getattr(recipe, name).per_step(), getattr(shared, name).per_step(processes)
        counts.append(f"{together}{'' if alone == together else f' instead of {alone}'} in {short_label(name)}")
    fewer = "" if shared is not recipe else (
        f"; so {processes} processes make 1/{processes} of the updates, as in the released code")
    return f"Items of forget in one update: {', '.join(counts)}{fewer}. docs/devices.md says more."


def _file(recipe: Recipe) -> None:
    text = recipes.as_toml(recipe)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.download_button("Download TOML", text, file_name=form.file_name(recipe), mime="application/toml",
                           icon=":material/download:", on_click="ignore", key="train_download")
        st.text_input("Name to save it under", key=NAME, persist_state="session", width=230,
                      placeholder=form.file_name(recipe).removesuffix(".toml"))
        st.button("Save", icon=":material/save:", key="train_save", on_click=_save, args=(recipe,),
                  help="Keeps it for “Start from” on this dashboard; an older one of that name is replaced.")
    st.code(text, language=None, height=420)


def _save(recipe: Recipe) -> None:
    def save() -> None:
        name = st.session_state[NAME].strip() or form.file_name(recipe).removesuffix(".toml")
        _frame.store().save_recipe(name, recipes.as_toml(recipe))
        st.session_state[_train_start.START] = st.session_state[_train_start.LOADED] = f"{_train_start.SAVED}{name}"
        st.toast(f"Saved as {_widgets.plain(name)}.", icon=":material/save:")
    _frame.attempt(save)
