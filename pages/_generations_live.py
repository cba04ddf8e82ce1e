"""Part of the generations page: a prompt that the models of the run answer now, through the one model host."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import streamlit as st

from analysis import text_marks, texts, theme
from pages import _frame, _generations_recorded, _generations_text, _widgets
from unlearn_core import host as hosts
from unlearn_core import jobs
from unlearn_core.data.persons import Person
from unlearn_core.errors import InputError
from unlearn_core.store import Run
from unlearn_core.vocabulary import QA, SC

RESULT = "generations_result"  # the last answers, until others are asked for
SOURCE = "generations_source"  # what the prompt was made from
SESSION = {"persist_state": "session"}
VIEWS = {"overlap": "Overlap with the reference", "diff": "Difference from the reference",
         "tokens": "How likely each written token was", "reference": "How likely the reference is", "none": "No marks"}


@st.cache_resource(show_spinner=False)
def host() -> hosts.ModelHost:
    """The one model host of the server, shared by all its browsers."""
    return hosts.ModelHost()


def show(run: Run) -> None:
    """Prompt, settings, the button, and the last answers."""
    with _frame.bad_input_shown():
        models, steps = hosts.available(run), hosts.checkpoints(run)
    if not models:
        st.info("The weights of this run's models are not on this machine, so they cannot be asked. Their recorded "
                "answers can be read.", icon=":material/cloud_off:")
        return
    item = _item(run)
    prompt, reference = _prompt(run, item)
    chosen = _models(models, steps)
    settings = _settings(run)
    _ask(run, item, prompt, reference, chosen, settings)
    result = st.session_state.get(RESULT)
    if result and result["run"] == run.id:
        _show_result(result)


# ---- what is asked -----------------------------------------------------------------------------------------------

def _item(run: Run) -> dict:
    """The chosen item with `person`, or {} for a prompt of one's own."""
    name = st.text_input("Item", key=_generations_recorded.ITEM, width=330, bind="query-params",
                         placeholder="id of an item, or empty for a prompt of your own")
    if not name:
        return {}
    found = _generations_recorded.table(run)
    own = _generations_recorded.chosen_item(found.assign(name=texts.item_names(found)), name)
    if own.empty:
        st.caption(f"There is no recorded item {_widgets.plain(name)} in this run.")
        return {}
    return {**own.iloc[0].to_dict(), "person": texts.person_of(found, own["document"].iloc[0])}


def _prompt(run: Run, item: dict) -> tuple[str, str]:
    """The prompt and reference as they stand in their fields, filled anew when the item or the form changes."""
    form = st.selectbox("Form of the prompt", list(texts.PROMPT_FORMS), key="generations_form", width=330,
                        disabled=not item, bind="query-params",
                        help="other ways to ask for the same item; every prompt can be edited")
    source = (run.id, item.get("name"), form)
    if item and st.session_state.get(SOURCE) != source:
        st.session_state[SOURCE] = source
        st.session_state["generations_prompt"] = texts.prompt(form, item["prompt"])
        st.session_state["generations_reference"] = item["answer"]
    left, right = st.columns(2)
    with left:
        prompt = st.text_area("Prompt", key="generations_prompt", height=120, **SESSION,
                              help="given to the models as it is, without a template")
    with right:
        reference = st.text_area("Reference answer, if there is one", key="generations_reference", height=120,
                                 **SESSION, help="what the answers are compared with")
    return prompt, reference


def _models(models: list[str], steps: list[str]) -> list[str]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        default = [model for model in models if model != "untrained"]
        chosen = st.pills("Models to ask", models, default=default, selection_mode="multi", key="generations_asked",
                          format_func=theme.short_label, bind="query-params")
        more = st.multiselect("Checkpoints", steps, key="generations_steps", format_func=_generations_text.label,
                              bind="query-params", width=300, placeholder="none") if steps else []
    return [*(model for model in models if model in chosen), *more]


def _settings(run: Run) -> dict:
    """Keyword arguments of `ModelHost.answer`."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        sampled = st.segmented_control("Answers", ["greedy", "sampled"], default="greedy", required=True,
                                       key="generations_how", bind="query-params") == "sampled"
        length = st.number_input("Most new tokens", 1, 1024, min(run.recipe().evaluation.max_new_tokens, 1024),
                                 key="generations_length", width=150, bind="query-params")
        if not sampled:
            return {"max_new_tokens": length}
        samples = st.number_input("Samples", 1, 16, 3, key="generations_samples", width=120, bind="query-params")
        temperature = st.number_input("Temperature", 0.05, 5.0, 1.0, 0.05, key="generations_temperature", width=140,
                                      bind="query-params", help="below 1 the likely tokens become likelier")
        top_p = st.number_input("Top p", 0.05, 1.0, 1.0, 0.05, key="generations_top_p", width=120,
                                bind="query-params",
                                help="only the likeliest tokens that together reach this probability; 1: all")
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="generations_seed", width=120, bind="query-params",
                               help="the same seed draws the same answers")
    return {"max_new_tokens": length, "samples": samples, "temperature": temperature, "top_p": top_p, "seed": seed}


# ---- asking ------------------------------------------------------------------------------------------------------

def _ask(run: Run, item: dict, prompt: str, reference: str, models: list[str], settings: dict) -> None:
    """Device, what stands in the way, and the button."""
    devices = {device.name: device.label for device in jobs.devices()}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        device = st.selectbox("Device", list(devices), format_func=devices.get, key="generations_device", width=260,
                              **SESSION)
        holder = jobs.holder(_frame.store(), device)
        anyway = device == "cpu" and holder is not None and st.toggle("Use it anyway", key="generations_anyway")
        asked = st.button("Ask the models", type="primary", icon=":material/forum:", key="generations_ask",
                          disabled=not may_ask(holder, device, anyway) or not models)
        if host().loaded():
            st.button("Unload", icon=":material/eject:", key="generations_unload", on_click=host().unload,
                      help="gives the memory of the models back")
    if holder is not None:
        st.warning(f"The job of run {_widgets.plain(holder.id)} holds {device}: the models would take memory from it. "
                   + ("It slows both down." if device == "cpu" else "Choose the CPU, or wait until it is done."),
                   icon=":material/hourglass_top:")
    if asked:
        try:
            st.session_state[RESULT] = _answers(run, device, item, prompt, reference, models, settings)
        except InputError as error:
            st.error(_widgets.plain(error), icon=":material/block:")
    loaded = host().loaded()
    st.caption(f"In memory: models of run {_widgets.plain(loaded.run)} on {loaded.device}, "
               f"{loaded.memory_mb:,.0f} MiB of weights, shared by all who use this server."
               if loaded else "No model is in memory; the first question loads them.")


def may_ask(holder: Run | None, device: str, anyway: bool) -> bool:
    """Whether the models may be loaded on a device: never beside a job on a GPU, on the CPU if one insists."""
    return holder is None or (device == "cpu" and anyway)


def _answers(run: Run, device: str, item: dict, prompt: str, reference: str, models: list[str], settings: dict
             ) -> dict:
    """What each model wrote, how it is measured, and the log-probabilities of the tokens."""
    person = item.get("person")
    kind = item.get("kind", QA if len(reference.split()) <= 3 else SC)
    found: dict[str, dict] = {}
    with st.status("Loading the models", expanded=False) as status, host().opened(run, device) as opened:
        for model in models:
            status.update(label=f"{_generations_text.label(model)} writes")
            answers, = opened.answer(model, [prompt], **settings)
            found[model] = {
                "rows": [_measured(kind, prompt, reference, answer, person) for answer in answers],
                "tokens": [opened.token_log_probs(model, prompt, answer.text) for answer in answers],
                "reference": opened.token_log_probs(model, prompt, reference) if reference.strip() else []}
        status.update(label="Answered", state="complete")
    return {"run": run.id, "item": item.get("name", ""), "device": device, "prompt": prompt, "reference": reference,
            "settings": settings, "models": found}


def _measured(kind: str, prompt: str, reference: str, answer: object, person: Person | None) -> dict:
    row = texts.measured(kind, prompt, reference, answer.text, hit_limit=answer.hit_limit, person=person)
    return row | {"new_tokens": answer.new_tokens}


# ---- what came back ----------------------------------------------------------------------------------------------

def _show_result(result: Mapping) -> None:
    st.subheader("What do the models write now?")
    st.caption(f"To: {_widgets.plain(result['prompt']) or 'an empty prompt'}")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        views = VIEWS if result["reference"].strip() else {key: VIEWS[key] for key in ("tokens", "none")}
        view = st.selectbox("Show", views, key="generations_show", format_func=VIEWS.get, width=330, **SESSION)
        stacked = st.toggle("Below each other", key="generations_stacked", bind="query-params")
    _generations_text.cards(list(result["models"]), lambda model: _card(result, result["models"][model], view),
                            stacked=stacked)
    _explain(view, result)
    table = result_table(result)
    with st.container(horizontal=True, gap="small"):
        st.download_button("Download the answers as CSV", lambda: table.to_csv(index=False), mime="text/csv",
                           file_name="live-answers.csv", key="generations_live_csv", icon=":material/download:",
                           on_click="ignore")
        st.download_button("as JSON", lambda: table.to_json(orient="records", indent=1, force_ascii=False),
                           mime="application/json", file_name="live-answers.json", key="generations_live_json",
                           icon=":material/download:", on_click="ignore")
    with _widgets.folded("Table of the tokens", key="generations_token_table") as opened:
        if opened.open:
            _widgets.show_table(token_rows(result), key="generations_tokens", alt="Tokens with their probabilities")


def _card(result: Mapping, own: Mapping, view: str) -> None:
    if view == "reference":
        tokens = own["reference"]
        _generations_text.show(text_marks.token_pieces(tokens))
        mean = -math.fsum(token.log_prob for token in tokens) / len(tokens) if tokens else math.nan
        st.caption(f"loss on the reference: {mean:.3g} nats per token, {len(tokens)} tokens" if tokens
                   else "no token to measure")
        return
    rows = own["rows"]
    if len(rows) > 1 and result["reference"].strip():
        st.caption(f"{texts.carriers(rows)} of {len(rows)} samples still say the reference")
    for number, (row, tokens) in enumerate(zip(rows, own["tokens"], strict=True), 1):
        if number > 1:
            st.divider()
        _generations_text.show_badges(row)
        pieces = {"overlap": lambda row, _: text_marks.overlap(result["reference"], row["generation"]),
                  "diff": lambda row, _: text_marks.word_diff(result["reference"], row["generation"]),
                  "tokens": lambda _, tokens: text_marks.token_pieces(tokens),
                  "none": lambda row, _: [text_marks.Piece(row["generation"])]}[view](row, tokens)
        _generations_text.show(pieces)
        st.caption(f"{row['new_tokens']} tokens written")


def _explain(view: str, result: Mapping) -> None:
    how = result["settings"]
    drawn = (f"{how['samples']} samples, temperature {how['temperature']:g}, top p {how['top_p']:g}, seed {how['seed']}"
             if "samples" in how else "greedy")
    said = f"{drawn}, at most {how['max_new_tokens']} new tokens, on {result['device']}."
    if view in ("tokens", "reference"):
        said += " " + _generations_text.legend(_generations_text.CERTAINTY_WORDS, _generations_text.CERTAINTY_WORDS)
        said += " Probability of each token after all before it, as the text is split anew into tokens."
    elif view == "overlap":
        said += " " + _generations_text.legend([text_marks.OVERLAP], _generations_recorded.MARK_WORDS)
    elif view == "diff":
        said += " " + _generations_text.legend([text_marks.INSERTED, text_marks.DELETED],
                                               _generations_recorded.MARK_WORDS)
    st.caption(said)


def result_table(result: Mapping) -> pd.DataFrame:
    """One row per model and sample, with the settings, for a download."""
    rows = [{"run": result["run"], "item": result["item"], "prompt": result["prompt"],
             "reference": result["reference"], "model": model, "sample": number, **row,
             "badges": ", ".join(badge.text for badge in texts.badges(row)), **result["settings"]}
            for model, own in result["models"].items() for number, row in enumerate(own["rows"], 1)]
    return pd.DataFrame(rows)


def token_rows(result: Mapping) -> pd.DataFrame:
    """One row per token of each answer and of the reference under each model."""
    parts = []
    for model, own in result["models"].items():
        named = [("reference", own["reference"]), *((f"sample {n}", t) for n, t in enumerate(own["tokens"], 1))]
        parts += [text_marks.token_table(tokens).assign(model=model, text=name) for name, tokens in named]
    return pd.concat(parts)[["model", "text", *text_marks.TOKEN_COLUMNS]] if parts else pd.DataFrame()
