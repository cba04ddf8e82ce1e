"""Recipes over settings and seeds: how far a sweep is, what differs between its configurations, and by how much."""

import streamlit as st

from analysis import sweep_figures, theme
from analysis import sweeps as tables
from pages import _cache, _frame, _widgets, _work
from unlearn_core import launching
from unlearn_core.sweep import sweeps

TICK_S = 3  # between two looks at a sweep that is under way
MOST_LINES = 10  # of unfinished runs
EXAMPLE = ["sweep", "demo", "--set", "merge.density=0.4,0.8", "--seeds", "0-4"]
VARIANTS = ["sweep", "demo", "--variant", "as-it-is", "--variant", "NPO-alone", "unlearn.gdr_weight=0",
            "unlearn.klr_weight=0", "--seeds", "0-4"]
SYMBOLS = {sweeps.FAILED: st.error, sweeps.DAMAGED: st.error, "running": st.info, "queued": st.info}


def explain_empty() -> None:
    st.info("A sweep runs one recipe over values of its settings and over seeds, and compares their scores. There is "
            f"none in {_widgets.plain(_frame.store().root)} yet. Start one in a terminal, then reload this page:",
            icon=":material/info:")
    _widgets.command(launching.command_line(EXAMPLE))
    st.caption("Settings that go together get a name, such as a baseline; --variant is repeatable:")
    _widgets.command(launching.command_line(VARIANTS))


def progress(wanted: sweeps.Sweep, drawn: list[str]) -> None:
    """How the runs stand; the page is drawn again when one has finished since it was `drawn`."""
    runs, _ = _cache.listing(_frame.store())
    cells = sweeps.cells(wanted, runs)
    if [cell.state for cell in cells if cell.state == sweeps.FINISHED] != drawn:
        st.rerun()
    left = tables.unfinished(tables.states(cells))
    st.progress(len(drawn) / len(cells), text=sweeps.counted(cells))
    for row in left.head(MOST_LINES).to_dict("records"):
        show = SYMBOLS.get(row["state"], st.warning)
        show(f"{row['state'].capitalize()}: {_widgets.plain(row['configuration'])}, seed {row['seed']}"
             + (f" · {_widgets.plain(row['message'])}" if row["message"] else ""))
    if len(left) > MOST_LINES:
        st.caption(f"{len(left) - MOST_LINES} more are in the table of runs below.")
    if len(drawn) < len(cells) and "running" not in set(left["state"]):
        st.caption("To go on with it, in a terminal; what failed is tried once more:")
        _widgets.command(launching.command_line(["sweep", "--resume", wanted.name]))


def results(wanted: sweeps.Sweep, cells: list[sweeps.Cell]) -> None:
    """The chart, the means and the paired differences of one model."""
    scores = tables.scores(cells)
    known = tables.models(scores)
    if not known:
        st.info("No run of this sweep has finished yet. Scores appear as soon as the first one has.",
                icon=":material/hourglass_empty:")
        return
    model = st.segmented_control("Model", known, default=known[0], required=True, key="sweep_model",
                                 bind="query-params", format_func=theme.short_label)
    summary, first = tables.summary(scores, wanted, model), wanted.configurations[0].name
    base, axis = tables.base(scores) if model != "base" else {}, tables.axis(wanted)
    figure = (sweep_figures.lines(summary, scores, model, base, axis) if axis else
              sweep_figures.dots(summary, scores, model, base))
    _widgets.chart(
        figure, scores[scores["model"] == model], key="sweep_scores",
        terms=("configuration", "interval"),
        title="Which configuration scores better, and by more than seeds differ?",
        alt="Scores of each configuration: mean over seeds with interval, and each seed",
        caption=f"{theme.short_label(model)}. Seeds {_seeds(wanted)}; each one makes data, base and all else anew. "
                "Bars: 95 % interval of the mean over seeds by Student's t; one seed has none. Dashed: the base, where "
                "the configurations of a seed share it; dotted: the ideal AUC, 0.5. Of the others more is better.")
    st.subheader("What are the means?")
    _widgets.show_table(tables.wide(summary, "mean"), key="sweep_means", alt="Mean scores of each configuration",
                        columns=_names(wanted))
    st.caption("Mean over seeds ± half of its 95 % interval. MIA score hides the direction: read the AUC beside it.")
    if len(wanted.configurations) > 1:
        paired = tables.paired(scores, wanted, model)
        st.subheader(f"What differs from {_widgets.plain(first)}, seed by seed?")
        _widgets.show_table(tables.wide(paired, "difference", "+"), key="sweep_differences",
                            alt="Scores of each configuration less those of the first", columns=_names(wanted))
        st.caption("Score less that of the first configuration on the seeds that both have, ± half of its 95 % "
                   f"interval, which is of this difference alone. {tables.describe(paired)}")


def runs_of(wanted: sweeps.Sweep, cells: list[sweeps.Cell]) -> None:
    """Every planned run, and the way to one."""
    st.subheader("Runs")
    _widgets.show_table(tables.states(cells), key="sweep_runs", alt="Every planned run of the sweep",
                        columns=_names(wanted) | {
                            "seed": st.column_config.NumberColumn("Seed", format="%d"), "state": "State",
                            "message": "Why, or where", "run": "Run"})
    there = {cell.run.id: f"{cell.configuration.name}, seed {cell.seed}" for cell in cells if cell.run}
    if there:
        chosen = st.selectbox("Go to", list(there), format_func=there.get, key="sweep_run")
        with _widgets.row():
            for page, label in (("overview", "Its scores"), ("train", "Its training"), ("generations", "Its answers")):
                st.page_link(f"pages/{page}.py", label=label, query_params={_widgets.RUN_KEY: chosen})


def _names(wanted: sweeps.Sweep) -> dict:
    """Settings of the column that names a configuration, which is never out of view."""
    width = min(30 + 7 * max(len(own.name) for own in wanted.configurations), 270)
    return {"configuration": st.column_config.TextColumn("Configuration", pinned=True, width=width)}


def _seeds(wanted: sweeps.Sweep) -> str:
    return ", ".join(map(str, wanted.seeds))


_frame.frame()
_frame.show_problems(_frame.listing()[1])  # they may be a sweep's, and then count as not begun
names = _frame.store().sweeps()
if not names:
    explain_empty()
    st.stop()
name = st.selectbox("Sweep", names, key="sweep", bind="query-params")
with _frame.bad_input_shown():
    wanted = sweeps.read(_frame.store(), name)
    cells = sweeps.cells(wanted, _frame.own_runs())
    st.caption(f"Recipe {_widgets.plain(wanted.recipe)} · {len(wanted.configurations)} configurations · seeds "
               f"{_seeds(wanted)}")
    finished = [cell.state for cell in cells if cell.state == sweeps.FINISHED]
    live = any(cell.state in _work.LIVE for cell in cells)
    st.fragment(progress, run_every=TICK_S if live else None)(wanted, finished)
    results(wanted, cells)
    runs_of(wanted, cells)
