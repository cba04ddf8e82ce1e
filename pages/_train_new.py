"""A new run: what it starts from, what it will take, the button that starts it, and the form of its recipe."""

from __future__ import annotations

import zlib

import streamlit as st

from analysis import form, plan
from pages import _form, _frame, _train_command, _train_start, _widgets
from unlearn_core import estimate, hub, jobs, launching
from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.estimate import Estimate, Workload
from unlearn_core.jobs import Device
from unlearn_core.settings import Base, Recipe
from unlearn_core.store import Run
from unlearn_core.tokens import SavedTokenizer

NAMED = 4  # changed settings that are named


def show() -> None:
    """The whole area; the form comes last and may be as long as it likes."""
    source, adapters = _train_start.choose()
    raw = st.session_state[_form.RAW]
    errors = recipes.field_errors(form.values_of(raw))
    recipe = None if errors else recipes.parse(form.values_of(raw))
    with st.container(border=True):
        _launch_pad(recipe, errors, source, adapters)
    if recipe is not None:
        _say_what_changed(recipe)
        _train_command.show(recipe, source, adapters)
    _fields(errors, source, adapters)


def _say_what_changed(recipe: Recipe) -> None:
    changes = _train_start.changes(st.session_state[_train_start.START], recipe)
    if changes:
        more = f" and {len(changes) - NAMED} more" if len(changes) > NAMED else ""
        st.caption(f"Changed: {_widgets.plain(', '.join(changes[:NAMED]))}{more}.")


# ---- what it will take, and the start --------------------------------------------------------------------------

def _launch_pad(recipe: Recipe | None, errors: dict[str, str], source: Run | None, adapters: bool) -> None:
    device = _device()
    if recipe is None:
        st.markdown(f"**Not ready: {len(errors)} "
                    f"{'setting is' if len(errors) == 1 else 'settings are'} wrong**")
        st.markdown("\n".join(f"- {_widgets.plain(name)}: {_widgets.plain(told)}" for name, told in errors.items()))
        _start_button(None, device, source, adapters, blocked="Put the settings right that are listed above.")
        return
    try:
        work = _workload(recipe, source)
        model = estimate.base_model(recipe.base)
        expected = estimate.estimate(recipe, work, model, base_is_there=source is not None,
                                     device=device.name) if work else None
        found = expected and _time(repr((recipe, expected, device.name, [run.id for run in _frame.own_runs()])),
                                   recipe, expected, device.name)
    except InputError as error:
        st.markdown(f"**Not ready:** {_widgets.plain(error)}")
        for arguments in plan.fetch_commands(recipe):
            st.caption("This public release is downloaded with:")
            _widgets.command(launching.command_line(arguments))
        _start_button(None, device, source, adapters, blocked="See what is wrong above.")
        return
    if expected is None:
        st.caption("Steps, memory and time are not known before the data are downloaded, which the run does first.")
    else:
        _estimate(expected, work, found)
    warnings = plan.warnings(recipe, work, expected, device) if expected else []
    for warning in warnings:
        st.warning(warning, icon=":material/warning:")
    anyway = not warnings or st.checkbox("Start anyway", key=f"train_anyway_{zlib.crc32(repr(warnings).encode())}")
    _start_button(recipe, device, source, adapters,
                  blocked="" if anyway else "Read the warning and tick “Start anyway”, or change the recipe.")


def _device() -> Device:
    devices = {device.name: device for device in _devices()}
    name = st.selectbox("Device", list(devices), key=_train_command.DEVICE, persist_state="session", width=330,
                        format_func=lambda name: f"{name}: {devices[name].label}")
    return devices[name]


@st.cache_data(ttl=5, show_spinner=False)
def _devices() -> list[Device]:
    return jobs.devices()


def _start_button(recipe: Recipe | None, device: Device, source: Run | None, adapters: bool, blocked: str) -> None:
    waiting, holder = jobs.queue(_frame.store(), device.name), jobs.holder(_frame.store(), device.name)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Start the run", type="primary", icon=":material/play_arrow:", disabled=bool(blocked),
                  key="train_start_run", on_click=_start, args=(recipe, device.name, source, adapters))
        if blocked:
            st.caption(blocked)
        elif holder or waiting:
            st.caption(f"{device.name} is in use by {_widgets.plain((holder or waiting[0]).id)}: this run waits as "
                       f"number {len(waiting) + 1} of the queue.")
        else:
            st.caption(f"{device.name} is free. The run goes on when you close this page.")


def _start(recipe: Recipe, device: str, source: Run | None, adapters: bool) -> None:
    def launch() -> None:
        run = jobs.start_run(_frame.store(), recipe, device=device, source=source, adapters=adapters)
        st.query_params[_widgets.RUN_KEY] = run.id
        st.query_params[_train_start.VIEW] = _train_start.WATCH
    _frame.attempt(launch)


def _estimate(expected: Estimate, work: Workload, time: estimate.Time | None) -> None:
    with st.grid(4, min_column_width=190):
        st.metric("Items forget / retain", f"{len(work.forget):,} / {len(work.retain):,}")
        st.metric("Optimizer steps", f"{sum(expected.steps.values()):,}", help=plan.steps_in_words(expected))
        st.metric("Memory at its peak", plan.size(expected.memory_mb), help=plan.memory_in_words(expected))
        st.metric("Training time", plan.time_in_words(time), help="of the trainings alone; merging and scoring come "
                                                                 "on top")
    st.caption(_widgets.plain(plan.basis(expected, work, time)))
    with _widgets.folded("Estimate in detail", key="train_estimate") as opened:
        if opened.open:
            _widgets.show_table(plan.steps_table(expected, time), key="train_estimate_steps",
                                alt="Estimated steps, operations and time of each model",
                                columns={"floating-point operations": st.column_config.NumberColumn(format="%.2e"),
                                         "seconds": st.column_config.NumberColumn(format="%.0f")})
            _widgets.show_table(plan.memory_table(expected), key="train_estimate_memory",
                                alt="Estimated parts of the memory of each stage")
            st.caption("Each stage at its largest step; the stages come one after another, so the largest counts.")


# ---- data ------------------------------------------------------------------------------------------------------

def _workload(recipe: Recipe, source: Run | None) -> Workload | None:
    stamps = plan.data_stamps(recipe, source)
    folder = estimate.tokenizer_folder(recipe, source)
    key = repr((recipe.data, recipe.world, recipe.seed, recipe.base.source, recipe.base.vocabulary, recipe.encoding,
                recipe.evaluation.mia_members, str(folder), stamps))
    return _counted(key, recipe, source, folder)


@st.cache_data(max_entries=16, show_spinner="Reading the data")
def _counted(key: str, _recipe: Recipe, _source: Run | None, _folder) -> Workload | None:
    found = estimate.dataset(_recipe, _source)
    return None if found is None else estimate.workload(_recipe, found, SavedTokenizer(_folder) if _folder else None)


@st.cache_data(ttl=60, max_entries=32, show_spinner=False)
def _time(key: str, _recipe: Recipe, _expected: Estimate, _device: str) -> estimate.Time | None:
    return estimate.training_time(_recipe, _expected, _frame.own_runs(), _device)  # not of another machine


# ---- the form --------------------------------------------------------------------------------------------------

def _fields(errors: dict[str, str], source: Run | None, adapters: bool) -> None:
    taken = frozenset(name for name in form.SETTINGS if source and form.is_taken(name, adapters))
    _form.table("", errors, taken)
    _form.models(errors)
    st.subheader("Everything else")
    raw = st.session_state[_form.RAW]
    for table, title in form.TABLES.items():
        wrong = form.problems_in(errors, table)
        if not table or not (wrong or any(form.matters(name, raw) for name in form.names_in(table))):
            continue
        with _widgets.folded(title, key=f"train_table_{table}", unfold=bool(wrong)) as opened:
            if not opened.open:
                continue
            _form.table(table, errors, taken)
            if table == "data":
                _data_of_ones_own(raw)
            if table == "base":
                _hub_model(raw)


def _data_of_ones_own(raw: form.Raw) -> None:
    """Data sets of the Data page, and the way to it."""
    if raw["data.source"] != "files":
        return
    names = _frame.store().datasets()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if names:
            st.selectbox("Take a data set made on the Data page", names, index=None, key="train_dataset",
                         on_change=_take_dataset, placeholder="fills in the path")
        st.page_link("pages/data.py", label="Upload or look at data on the Data page", icon=":material/dataset:")


def _take_dataset() -> None:
    name = st.session_state["train_dataset"]
    if name:
        raw = st.session_state[_form.RAW]
        raw.update({"data.path": str(_frame.store().dataset_dir(name)), "data.forget": "", "data.retain": ""})


def _hub_model(raw: form.Raw) -> None:
    """What is known of a base that is loaded: a folder is looked at now, the hub is asked only on a click."""
    name = str(raw["base.model"]).strip()
    if raw["base.source"] == "scratch" or not name:
        return
    try:
        model = estimate.base_model(Base(source="load", model=name))
    except InputError as error:
        st.markdown(f":red[:material/error: {_widgets.plain(error)}]")
        return
    if model is not None:
        st.caption(f":material/check_circle: {plan.model_in_words(model)}")
        if not model.published:
            return
    st.caption("A model on the hub that is not on this machine yet, or one whose config says no sizes.")
    st.button("Ask the hub for it", icon=":material/cloud_download:", key="train_check_hub", on_click=_frame.attempt,
              args=(lambda: hub.config(name),), help="Fetches its config.json only.")
