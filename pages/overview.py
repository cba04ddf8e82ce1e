"""All runs, and of the chosen one the official scores, the trade-off and the twelve sub-scores."""

import pandas as pd
import streamlit as st

from analysis import figures, frames, published, verdicts
from pages import _cache, _widgets
from unlearn_core.evaluation import score
from unlearn_core.vocabulary import METRICS, MMLU_GATE_SHARE

number = st.column_config.NumberColumn


def metric_columns(frame: pd.DataFrame) -> dict:
    """Column settings of the metrics in a table; a column with gaps gets the room to say so."""
    return {key: number(METRICS[key].label, help=METRICS[key].help, format="%.3f",
                        width=_widgets.GAP_WIDTH if frame[key].isna().any() else None)
            for key in frame.columns if key in METRICS}


run = _widgets.selected_run()

# ---- all runs

st.subheader("Runs")
found, problems = _widgets.listing()
runs = frames.run_table(found)
_widgets.show_problems([*problems, *runs.loc[runs["problem"] != "", "problem"]])
_widgets.show_table(
    runs.drop(columns="problem"), key="runs", alt="All runs, newest first",
    order=("id", "title", "state", "aggregate", "task_aggregate", "mia_auc", "created", "elapsed_s", "seed", "recipe"),
    columns=metric_columns(runs) | {
        "id": "Run", "title": "Title", "state": "State", "seed": number("Seed", format="%d"), "recipe": "Recipe",
        "created": st.column_config.DatetimeColumn("Created (UTC)", format="YYYY-MM-DD HH:mm"),
        "elapsed_s": number("Elapsed", format="duration", help="from creation to the last status, pauses included"),
    })
st.caption("Scores are the merged model's. Choose the run to look at in the sidebar.")

# ---- the chosen run

with _widgets.bad_input_shown():
    scores = _cache.table(frames.score_table, run)
    sub_scores = _cache.table(frames.sub_scores, run)
    recipe, title = run.recipe(), run.meta().get("title") or run.id

st.header(_widgets.plain(title))
st.caption(f"Run {_widgets.plain(run.id)} · recipe {_widgets.plain(recipe.name)} · seed {recipe.seed} · "
           f"data: {_widgets.plain(recipe.data.source)} · base: {_widgets.plain(recipe.base.source)} · "
           f"merge: {recipe.merge.method} on {recipe.merge.level}, "
           f"density {recipe.merge.density:g}")
if scores.empty:
    with _widgets.bad_input_shown():
        trained = run.status()["state"] == "trained"
    st.info("Both models are trained; the scores come with the merge and the evaluation, which the command above "
            "starts." if trained else
            "No model of this run has been scored yet. Scores appear here as soon as the first model is evaluated.",
            icon=":material/hourglass_empty:")
    st.stop()

sentences = verdicts.merge_summary(scores)
if sentences:
    with st.container(border=True):
        st.markdown("**Merged model**  \n" + "  \n".join(sentences))

st.subheader("Scores: is the merge balanced, useful, and better than its parents?")
word_columns = {
    "label": st.column_config.TextColumn("Model", pinned=True), "verdict": "Forgetting",
    "mia_auc_low": number("AUC low", format="%.3f", help="lower end of the AUC's 95 % interval"),
    "mia_auc_high": number("AUC high", format="%.3f", help="upper end of the AUC's 95 % interval"),
    "mmlu_gate": st.column_config.TextColumn("MMLU gate", help=f"at least {MMLU_GATE_SHARE:g} of the base's MMLU"),
}
_widgets.show_table(
    scores, key="scores", alt="Official scores of each model of the run", columns=metric_columns(scores) | word_columns,
    order=("label", "aggregate", "task_aggregate", "mia_auc", "mia_auc_low", "mia_auc_high", "verdict", "mia_score",
           "mmlu", "mmlu_gate"))
st.caption("Aggregate = mean of Task Aggregate, MIA score and MMLU. AUC with its 95 % interval: ▲ wholly above 0.5, "
           "▼ wholly below, ● holds 0.5, ◌ holds 0.5 but is wider than "
           f"{score.WIDEST_BALANCED:g}; {frames.attack_size(scores)}. "
           f"MMLU: {frames.quiz_size(scores)}.")

with st.expander("Published numbers: other models, other data, not comparable one to one"):
    others = published.table().drop(columns="model")
    _widgets.show_table(others, key="published", alt="Scores that others published", columns=metric_columns(others) | {
        "system": "System", "setting": "Setting", "verdict": "Forgetting, in their words"})
    st.caption("Table 1 of arXiv 2503.21088: online = 7B leaderboard of SemEval-2025 Task 4 (gives no AUC), "
               "local = the authors' own evaluation. The verdict is the paper's.")

ghosts = st.toggle("Show published systems", value=True, key="ghosts", bind="query-params")
_widgets.chart(
    figures.tradeoff(scores, published.table() if ghosts else None), scores, key="tradeoff",
    title="Did the merge land on the 0.5 line, further right than its parents?",
    alt="Task Aggregate against the membership attack's AUC for each model",
    caption=f"Seed {recipe.seed}. MIA AUC = P(loss of a member < loss of a non-member), "
            f"{frames.attack_size(scores)}; bars are 95 % intervals. Task Aggregate = harmonic mean of the twelve "
            "terms below. "
            + ("Grey: published numbers of other models on other data." if ghosts else ""))

missing = sub_scores.loc[sub_scores["value"].isna()]
_widgets.chart(
    figures.sub_scores(sub_scores), sub_scores, key="sub_scores",
    title="What is still known on the forget side, and what was lost on the retain side?",
    alt="Twelve sub-scores of each model, forget left and retain right",
    caption=f"Seed {recipe.seed}. Regurgitation = mean ROUGE-L recall of the continuations; knowledge = share of "
            "questions answered exactly; bars are 95 % intervals where there is one. "
            + (f"{_widgets.NOT_MEASURED.capitalize()}: {len(missing)} values, see the table." if len(missing) else ""))
