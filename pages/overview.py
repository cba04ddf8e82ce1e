"""All runs, and of the chosen one the official scores, the trade-off and the twelve sub-scores, or a comparison."""

import streamlit as st

from analysis import figures, frames, lineage, theme, verdicts
from pages import _cache, _frame, _overview_compare, _overview_runs, _overview_scores, _robust_verdict, _widgets
from unlearn_core.evaluation import score

_frame.frame()
if st.session_state.get(_widgets.RUN_KEY) is None:
    _frame.explain_empty_store()
    if not _frame.read_only():
        _overview_runs.import_panel()
    st.stop()

# ---- all runs

st.subheader("Runs")
found, problems = _frame.listing()
run = next(run for run in found if run.id == st.session_state[_widgets.RUN_KEY])
runs = frames.run_table(found)
_frame.show_problems([*problems, *runs.loc[runs["problem"] != "", "problem"]])
_overview_runs.run_table(runs, run.id, {one.id for one in found if _frame.store().is_example(one)})
if not _frame.read_only():
    _overview_runs.import_panel()

compared = _overview_compare.choice(run, found, list(runs.loc[~runs["archived"], "id"]))
if len(compared) > 1:
    with _frame.bad_input_shown():
        _overview_compare.compare(compared)
    st.stop()

# ---- the chosen run

with _frame.bad_input_shown():
    scores = _cache.table(frames.score_table, run)
    sub_scores = _cache.table(frames.sub_scores, run)
    recipe, title, brought = run.recipe(), run.meta()["title"] or run.id, list(run.brought())

st.header(_widgets.plain(title))
st.caption(f"Run {_widgets.plain(run.id)} · recipe {_widgets.plain(recipe.name)} · seed {recipe.seed} · "
           f"data: {_widgets.plain(recipe.data.source)} · "
           + (f"models that were brought: {', '.join(map(theme.short_label, brought))}" if brought else
              f"base: {_widgets.plain(recipe.base.source)} · merge: {recipe.merge.method} on {recipe.merge.level}, "
              f"density {recipe.merge.density:g}"))
with st.container(horizontal=True), _frame.bad_input_shown():
    if _frame.may_change(run):
        _overview_runs.labels_panel(run, sorted({tag for tags in runs["tags"] for tag in tags}))
    _overview_runs.export_panel(run)
verdict = st.container()  # filled last: on a large run it takes a moment

if scores.empty:
    with _frame.bad_input_shown():
        trained = run.status()["state"] == "trained"
    st.info("Both models are trained; the scores come with the merge and the evaluation, which the command above "
            "starts." if trained else
            "No model of this run has been scored yet. Scores appear here as soon as the first model is evaluated.",
            icon=":material/hourglass_empty:")
else:
    sentences = verdicts.summary(scores)
    if sentences:
        with st.container(border=True):
            st.markdown(f"**{'Tested' if brought else 'Merged'} model**  \n" + "  \n".join(sentences))

    st.subheader("Scores: is the tested model balanced and useful?" if brought else
                 "Scores: is the merge balanced, useful, and better than its parents?")
    _widgets.show_table(
        scores, key="scores", alt="Official scores of each model of the run",
        columns=_overview_scores.metric_columns(scores) | _overview_scores.score_columns(),
        order=("label", "aggregate", "task_aggregate", "mia_auc", "mia_auc_low", "mia_auc_high", "verdict", "mia_score",
               "mmlu", "mmlu_gate"))
    st.caption("Aggregate = mean of Task Aggregate, MIA score and MMLU. AUC with its 95 % interval: ▲ wholly above "
               "0.5, ▼ wholly below, ● holds 0.5, ◌ holds 0.5 but is wider than "
               f"{score.WIDEST_BALANCED:g}; {frames.attack_size(scores)}. MMLU: {frames.quiz_size(scores)}.")

    with _widgets.folded("Published numbers: other models, other data, not comparable one to one",
                         key="published_table") as opened:
        if opened.open:
            _overview_scores.published_numbers()

    _frame.part(_overview_scores.tradeoff, frames.with_halves(scores, sub_scores), f"Seed {recipe.seed}.",
                  draw=lambda name, figure: _cache.kept(run, name, figure))

    missing = sub_scores.loc[sub_scores["value"].isna()]
    _widgets.chart(
        _cache.kept(run, "sub_scores", lambda: figures.sub_scores(sub_scores)), sub_scores, key="sub_scores",
        title="What is still known on the forget side, and what was lost on the retain side?",
        alt="Twelve sub-scores of each model, forget left and retain right",
        caption=f"Seed {recipe.seed}. Regurgitation = mean ROUGE-L recall of the continuations; knowledge = share of "
                "questions answered exactly; bars are 95 % intervals where there is one. "
                + (f"{_widgets.NOT_MEASURED.capitalize()}: {len(missing)} values, see the table."
                   if len(missing) else ""))

with _frame.bad_input_shown():
    stages = _cache.table(lineage.table, run)
_widgets.chart(
    _cache.kept(run, "lineage", lambda: figures.lineage_graph(stages)), stages, key="lineage",
    terms=("base", "adapter", "checkpoint"), title="Where does it come from, and what is still missing?",
    alt="Stages of the run from the data over its models to the evaluation",
    caption=f"Seed {recipe.seed}. ✓ done, ◐ started, ○ not yet, by the files in the run folder.")

if not scores.empty:
    with verdict, _frame.bad_input_shown():
        with st.spinner("Judging", show_time=True):
            judged = _robust_verdict.of_run(run)
        _robust_verdict.strip(judged)
        st.page_link("pages/robustness.py", label="Every gate, and why, on Robustness", icon=":material/shield:",
                     query_params={_widgets.RUN_KEY: run.id})
