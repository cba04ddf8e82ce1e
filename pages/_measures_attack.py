"""Section of the metrics page: which documents an attack recognises, by any score, member set and threshold."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis import attacks, attacks_figures, theme, thresholds
from analysis.attacks import ATTACKS, KINDS, MEMBERS, Choice, Sides
from analysis.thresholds import STRATEGIES
from pages import _cache, _frame, _measures_parts, _widgets
from unlearn_core.store import Run
from unlearn_core.vocabulary import DOCUMENT, TASK_LABELS, TASKS

VIEWS = {"auc": "AUC", "losses": "Scores and threshold", "roc": "ROC", "all": "Every attack"}
BOUND = {"bind": "query-params"}
COUNTS = {"model": "Model", "threshold": "Threshold", "recognised": "Members recognised", "hidden": "Members hidden",
          "false_alarms": "Held out, called members", "told_right": "Held out, told right"}
NUMBERS = {"model": "Model", "members": "Members", "nonmembers": "Held out", "auc": "AUC", "low": "AUC low",
           "high": "AUC high", "two_sided": "Two-sided AUC", "tpr_1": "Recognised at 1 % FPR",
           "tpr_5": "Recognised at 5 % FPR", "over_1": "Harder at 1 % FPR", "over_5": "Harder at 5 % FPR", "p": "p"}
UNIT = "One value per document (the mean over its answers): questions about one person are not independent."


def show(run: Run) -> None:
    """Switches, then one view; or what to do where nothing was measured."""
    texts = _measures_parts.texts(run)
    if texts is not None:
        _frame.part(_section, run, texts)


def _section(run: Run, texts: pd.DataFrame) -> None:
    view = st.segmented_control("View", list(VIEWS), default="auc", required=True, key="metrics_attack_view",
                                format_func=VIEWS.get, label_visibility="collapsed", **BOUND)
    models = [model for model in run.models() if (texts["model"] == model).any()]
    if view == "all":
        _everything(run, texts, models)
        return
    choice = _choice()
    found = {model: attacks.sides(texts, model, choice) for model in models}
    if view == "auc":
        _auc(run, texts, models, choice)
    elif view == "losses":
        _losses(run, found, choice)
    else:
        _roc(run, found, choice)


def _choice() -> Choice:
    with _widgets.row():
        attack = st.selectbox("Attack", list(ATTACKS), format_func=ATTACKS.get, key="metrics_attack", width=170,
                              help="  \n".join(f"{ATTACKS[key]}: {words}" for key, words in attacks.HELP.items()),
                              **BOUND)
        members_of = st.segmented_control("Members", MEMBERS, default="forget", required=True, key="metrics_members",
                                          **BOUND)
        kind = st.segmented_control("Texts", list(KINDS), default=DOCUMENT, required=True, key="metrics_texts",
                                    format_func=KINDS.get, **BOUND)
        task = st.selectbox("Task", ["", *TASKS], key="metrics_attack_task", width=180,
                            format_func=lambda task: TASK_LABELS.get(task, "all tasks"), **BOUND)
    return Choice(attack, members_of, kind, task)


def _about(run: Run, choice: Choice, found: dict[str, Sides]) -> str:
    sizes = sorted({(len(both.members), len(both.nonmembers)) for both in found.values() if not both.missing})
    said = " or ".join(f"{members} members and {others} held-out documents" for members, others in sizes)
    return f"{choice.words()}; {said or 'nothing to compare'}; seed {run.recipe().seed}. {UNIT}"


# ---- views -----------------------------------------------------------------------------------------------------

def _auc(run: Run, texts: pd.DataFrame, models: list[str], choice: Choice) -> None:
    table = _cache.kept(run, ("attack", choice), lambda: attacks.by_model(texts, models, choice))
    for row in table.to_dict("records"):
        st.markdown(f"- {attacks.describe(row, theme.short_label(row['model']))}")
    found = {model: attacks.sides(texts, model, choice) for model in models}
    _widgets.chart(
        _cache.kept(run, ("attack dial", choice), lambda: attacks_figures.dial(table)),
        table, key="metrics_dial", title="Does the attack still recognise the members?",
        terms=("mia_auc", "attack", "interval"),
        alt="AUC of the attack on each model with its interval, between over- and under-forgetting",
        caption=f"{_about(run, choice, found)} AUC: chance and ideal 0.5, or a retrained model's; 95 % intervals, "
                "one-sided at the ends.")
    shown = table.assign(model=table["model"].map(theme.short_label))[list(NUMBERS)].rename(columns=NUMBERS)
    with _widgets.folded("Rates at few false alarms, and both sides at once", key="metrics_rates") as opened:
        if opened.open:
            formats = {name: st.column_config.NumberColumn(format="%.3f") for name in shown.columns[3:-1]}
            _widgets.show_table(shown, key="metrics_rates_table", alt="AUC and rates of the attack on each model",
                                terms=("tpr_at_1_fpr", "two_sided_auc"),
                                columns=formats | {"p": st.column_config.NumberColumn(format="%.2g")})
            st.caption("Recognised at 1 % FPR: share of members that stand out as known when 1 % of the held-out "
                       "documents are falsely called members; harder: that stand out as harder than unseen text. "
                       "Chance is 1 % and 5 %. Not measured where the held-out documents are too few (100 and 20). "
                       "Two-sided AUC: above 0.5 where members lie further out on either side, which an AUC of 0.5 "
                       "can hide. p: Mann-Whitney, one test.")


def _losses(run: Run, found: dict[str, Sides], choice: Choice) -> None:
    known = {model: both for model, both in found.items() if not both.missing}
    if not known:
        st.info("Not measured: " + next(iter(found.values())).missing + ".", icon=":material/block:")
        return
    with _widgets.row():
        strategy = st.selectbox(
            "Threshold", list(STRATEGIES), format_func=STRATEGIES.get, key="metrics_strategy", width=230,
            help="Best on each model: most members for the fewest false alarms. Best on the base: one threshold for "
                 "all models, which an attacker finds without them.", **BOUND)
        low, high = (float(end) for end in _range(known))
        custom = (low + high) / 2
        if strategy == "custom":
            custom = st.slider("Score", low, high, custom, key="metrics_threshold", width=300)
    cuts = thresholds.chosen(known, strategy, custom)
    bins = _cache.kept(run, ("attack bins", choice), lambda: thresholds.bins(known))
    key = ("attack densities", choice, tuple(cuts.items()))
    _widgets.chart(
        _cache.kept(run, key, lambda: attacks_figures.densities(bins, cuts, ATTACKS[choice.attack])), bins,
        key="metrics_densities", title="Do members and unseen documents still differ?",
        terms=("member", "attack"),
        alt="Share of members and of held-out documents over the attack's score, one row per model",
        caption=f"{_about(run, choice, found)} Filled: members; dotted: held out; dashed line: the threshold, left of "
                "which a document is called a member. After ideal forgetting both lie on each other.")
    counted = thresholds.counts(known, cuts)
    _widgets.show_table(counted.assign(model=counted["model"].map(theme.short_label)).rename(columns=COUNTS),
                        key="metrics_counts", alt="What the threshold gets right and wrong on each model",
                        columns={"Threshold": st.column_config.NumberColumn(format="%.3f")})
    with _widgets.folded("The documents behind these counts", key="metrics_called") as opened:
        if opened.open:
            _called(run, known, cuts, choice)


def _range(known: dict[str, Sides]) -> tuple[float, float]:
    ends = [end for both in known.values() for side in (both.members, both.nonmembers)
            for end in (side.min(), side.max())]
    return min(ends), max(ends)


def _called(run: Run, known: dict[str, Sides], cuts: dict[str, float], choice: Choice) -> None:
    model = st.selectbox("Model", list(known), index=len(known) - 1, format_func=theme.short_label,
                         key="metrics_called_model", width=240, **BOUND)
    table = thresholds.called(known[model], cuts[model])
    names = {"document": "Document", "member": "Member", "score": ATTACKS[choice.attack], "called": "Called",
             "right": "Right"}
    st.dataframe(table.rename(columns=names), hide_index=True, height=260, key="metrics_called_rows",
                 selection_mode="single-row", on_select="rerun", alt=f"Documents by their score on {model}",
                 column_config={ATTACKS[choice.attack]: st.column_config.NumberColumn(format="%.3f")})
    rows = st.session_state["metrics_called_rows"]["selection"]["rows"]
    if rows:
        st.code(_measures_parts.text_of(run, table["document"].iloc[rows[0]]), language=None, wrap_lines=True)
        st.caption("Personal data are masked.")
    else:
        st.caption("Select a row to read its document.")


def _roc(run: Run, found: dict[str, Sides], choice: Choice) -> None:
    log = st.toggle("Log axes", key="metrics_roc_log", help="the left end: are a few members recognised for sure?",
                    **BOUND)
    curves = {model: thresholds.roc(both) for model, both in found.items() if not both.missing}
    table = pd.concat([curve.assign(model=model) for model, curve in curves.items()], ignore_index=True) \
        if curves else pd.DataFrame(columns=list(thresholds.CURVE_COLUMNS))
    _widgets.chart(
        _cache.kept(run, ("attack roc", choice, log), lambda: attacks_figures.roc(curves, log)), table,
        key="metrics_roc", title="How many members are recognised at how many false alarms?",
        terms=("tpr_at_1_fpr",),
        alt="ROC curve of the attack on each model with the chance line",
        caption=f"{_about(run, choice, found)} Dotted: chance. Below it, members are harder than unseen documents. "
                "With n held-out documents no rate below 1 / n can be seen.")


def _everything(run: Run, texts: pd.DataFrame, models: list[str]) -> None:
    with _widgets.row():
        model = st.selectbox("Model", models, index=len(models) - 1, format_func=theme.short_label,
                             key="metrics_attacked", width=240, **BOUND)
        kind = st.segmented_control("Texts", list(KINDS), default=DOCUMENT, required=True, key="metrics_heat_texts",
                                    format_func=KINDS.get, **BOUND)
    table = _cache.kept(run, ("attack table", model), lambda: attacks.table(texts, model))
    for sentence in attacks.describe_all(table):
        st.markdown(f"- {sentence}")
    own = table[table["kind"] == kind]
    _widgets.chart(
        _cache.kept(run, ("attack heat", model, kind), lambda: attacks_figures.heat(table, kind)), own,
        key="metrics_heat", title="Does another attack, or another member set, tell another story?",
        terms=("attack", "told_apart"),
        alt="AUC of five attacks on every member set against the held-out documents of the same task",
        caption=f"{theme.short_label(model)}; {KINDS[kind].lower()}; non-members: held-out documents of the same task; "
                f"seed {run.recipe().seed}. Orange: still recognised, purple: harder than unseen, grey: 0.5, chance. "
                f"In brackets: not told apart from chance. On retain the ideal is to be recognised. {UNIT}")
