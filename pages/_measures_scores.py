"""Section of the metrics page: the twelve scores and the headlines with intervals, chance and ideal, weakest link."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from analysis import chance, headlines, metrics_figures, official, text_modes, theme
from pages import _cache, _frame, _widgets
from unlearn_core.store import Run

BOUND = {"bind": "query-params"}
MODELS = "metrics_models"  # key of the models that several sections show
LINKS = {"label": "Term", "term": "Value", "pull": "Pull", "at_ideal": "Aggregate at its ideal", "gain": "Gain",
         "base": "Base's term", "at_base": "Aggregate at the base's", "best": "Best other's term",
         "best_model": "Best other", "at_best": "Aggregate at the best other's"}
NUMBER = st.column_config.NumberColumn


def show(run: Run) -> None:
    """The twelve and the weakest link for the chosen models, then the headlines of all of them."""
    with st.spinner("Reading the answers", show_time=True):
        table = scores(run)
    measured = table.groupby("model", sort=False)["value"].count()
    known = [model for model in measured.index if measured[model]]
    if not known:
        st.info("Not measured: no model of this run has been scored on forget and retain yet.",
                icon=":material/hourglass_empty:")
        return
    _frame.part(_twelve, run, table, known)
    _frame.part(_headlines, run, known)


def _twelve(run: Run, table: pd.DataFrame, known: list[str]) -> None:
    models = choose_models(known)
    if not models:
        return
    model = st.selectbox("Weakest link of", models, key="metrics_model", width=240, format_func=theme.short_label,
                         index=models.index(text_modes.default_model(models)), **BOUND)
    links = headlines.links(table, model)
    for sentence in headlines.describe_links(links, model):
        st.markdown(f"- {sentence}")
    _dots(run, table, models)
    _links(links, model)
    with _widgets.folded("The same as a radar", key="metrics_radar") as opened:
        if opened.open:
            st.plotly_chart(_cache.kept(run, ("radar", models), lambda: metrics_figures.radar(table, models)),
                            key="metrics_radar_chart", config={"displaylogo": False},
                            alt="Twelve terms of the harmonic mean around a circle, one line per model")
            st.caption("Terms: 1 − score on forget, score on retain; the rim is ideal, dotted what fluent unrelated "
                       "text has. The area depends on the order of the spokes: read the dots above.")
            _widgets.definitions("task_aggregate", "term", "chance_level")


def scores(run: Run) -> pd.DataFrame:
    """`official.table` of the run."""
    return _cache.kept(run, "official", lambda: official.table(run, _answers(run), levels(run)))


def _answers(run: Run) -> dict[str, official.Answers]:
    return _cache.kept(run, "answers as numbers", lambda: official.of_run(run))


def levels(run: Run) -> dict[str, float]:
    """Chance levels of the run's items."""
    return _cache.kept(run, "chance", lambda: chance.of_run(run))


def choose_models(known: Sequence[str]) -> list[str]:
    """The models that a section shows, in their order; says so where none is chosen."""
    chosen = st.pills("Models", known, default=known, selection_mode="multi", key=MODELS,
                      format_func=theme.short_label, **BOUND)
    if not chosen:
        st.info("Choose a model.", icon=":material/filter_alt:")
    return [model for model in known if model in chosen]


def _dots(run: Run, table: pd.DataFrame, models: list[str]) -> None:
    own = table[table["model"].isin(models)]
    sizes = own.loc[own["units"] > 0, "units"]
    _widgets.chart(
        _cache.kept(run, ("scores", models), lambda: metrics_figures.scores(own, models)), own, key="metrics_scores",
        terms=("chance_level", "interval"),
        title="What is still there on forget, what is left on retain, and is it more than chance?",
        alt="Twelve sub-scores of each model with intervals and chance levels, forget left and retain right",
        caption=f"n = {sizes.min()} to {sizes.max()} documents or persons per score; seed {run.recipe().seed}. "
                "Regurgitation = mean ROUGE-L recall of the continuations; knowledge = share of questions answered "
                "exactly. Bars: 95 % intervals over documents, all of one person as one; upright lines: a fluent text "
                "about something else, on these items; dotted: the ideal." if len(sizes) else
                f"Seed {run.recipe().seed}. Without answers neither n nor chance can be told.")
    for sentence in official.gaps(own):
        st.caption(_widgets.plain(sentence))


def _headlines(run: Run, models: list[str]) -> None:
    st.subheader("The headlines, and what chance and the ideal are")
    table = _cache.kept(run, "headlines", lambda: headlines.headlines(run, _answers(run), levels(run)))
    own = table[table["model"].isin(models)]
    st.dataframe(headlines.grid(own), hide_index=True, placeholder=_widgets.NOT_MEASURED,
                 alt="Headline scores of each model with interval, chance level and ideal",
                 column_config={"Number": st.column_config.TextColumn(pinned=True)})
    st.download_button("Download CSV", lambda: own.to_csv(index=False), file_name="metrics_headlines.csv",
                       mime="text/csv", key="metrics_headlines_csv", icon=":material/download:", on_click="ignore")
    _widgets.definitions(*headlines.HEADLINES, "p_zero", "chance_level")
    sizes = "; ".join(f"{label}: {', '.join(dict.fromkeys(rows['n']))}" for label, rows in
                      own[(own["n"] != "") & (own["metric"] != "aggregate")].groupby("label", sort=False))
    st.caption(f"Value [95 % interval]. n: {sizes}. P: with other documents of the same kind, as if drawn from these. "
               "Chance: an ignorant, fluent model whose losses tell nothing, and which guesses letters; its MIA score "
               "is below 1, as the AUC of so few documents misses 0.5. Ideal of MMLU: the base's. Intervals: the Task "
               "Aggregate's from drawing documents again (none where a term is 0 in every draw); the Aggregate's from "
               "the lower and the upper ends of its three parts, which is cautious.")


def _links(links: pd.DataFrame, model: str) -> None:
    with _widgets.folded(f"What each term of {theme.short_label(model)} costs", key="metrics_links") as opened:
        if opened.open:
            if links.empty:
                st.caption("It takes all twelve scores.")
                return
            shown = links.assign(best_model=links["best_model"].map(theme.short_label))
            formats = {name: NUMBER(format="%.3f") for key, name in LINKS.items() if key not in ("label", "best_model")}
            _widgets.show_table(shown[list(LINKS)].rename(columns=LINKS), key="metrics_links_table",
                                alt="Each term of the harmonic mean and the Task Aggregate if it were fixed",
                                columns=formats | {"Pull": NUMBER(format="percent")})
            st.caption("Pull: the term's share of the sum of 1 / term, which is what holds a harmonic mean down. Each "
                       "column of the Aggregate changes this one term and nothing else.")
