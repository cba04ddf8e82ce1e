"""Tables and pictures of a sweep, with the arithmetic written out or taken from scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import sweep_figures
from analysis import sweeps as tables
from tests import example_sweep
from unlearn_core.store import Store
from unlearn_core.sweep import sweeps

FIRST, SECOND, THIRD = "merge.density=0.4", "merge.density=0.6", "merge.density=0.8"
AGGREGATES = {FIRST: [0.50, 0.60, 0.70, 0.55], SECOND: [0.58, 0.66, 0.79, 0.64], THIRD: [0.52, 0.58, 0.73]}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def sweep(store):
    """Three densities on four seeds, of the third the last one failed; MMLU is the same everywhere."""
    made = example_sweep.planned(store.root, ["merge.density=0.4,0.6,0.8"], range(4))
    for number, own in enumerate(AGGREGATES.values()):
        for seed, value in enumerate(own):
            example_sweep.finished(store.root, made, number, seed, {
                "base": {"task_aggregate": seed / 10, "mia_auc": 1.0},
                "merged": {"task_aggregate": value, "mia_auc": 0.5 + value / 10, "mmlu": 0.7}})
    example_sweep.begun(store.root, made, 2, 3).write_status("failed", "model_2", message="out of memory")
    return made


def of(store, sweep):
    return tables.scores(sweeps.cells(sweep, store.runs()))


def test_scores_are_one_row_per_finished_run_model_and_metric(store, sweep):
    table = of(store, sweep)
    assert tuple(table.columns) == tables.SCORE_COLUMNS
    assert len(table) == 11 * 5
    own = table[(table["configuration"] == SECOND) & (table["metric"] == "task_aggregate") & (table["seed"] == 2)]
    assert own.set_index("model")["value"].to_dict() == {"base": 0.2, "merged": 0.79}
    assert tables.models(table) == ["merged", "base"]


def test_states_are_one_row_per_planned_run_with_the_reason_of_a_failure(store, sweep):
    states = tables.states(sweeps.cells(sweep, store.runs()))
    assert tuple(states.columns) == tables.STATE_COLUMNS
    assert len(states) == 12
    left = tables.unfinished(states)
    assert left[["configuration", "seed", "state", "message"]].to_numpy().tolist() == [
        [THIRD, 3, "failed", "out of memory"]]


def test_the_summary_has_the_mean_and_the_interval_of_student(store, sweep):
    summary = tables.summary(of(store, sweep), sweep, "merged").set_index(["configuration", "metric"])
    for name, values in AGGREGATES.items():
        row = summary.loc[(name, "task_aggregate")]
        assert (row["n"], row["planned"]) == (len(values), 4)
        ends = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (row["low"], row["high"]) == pytest.approx(ends)
    assert np.isnan(summary.loc[(FIRST, "aggregate"), "mean"])  # not measured, and not 0


def test_differences_are_taken_on_common_seeds_and_tested_as_pairs_with_holm_over_all(store, sweep):
    paired = tables.paired(of(store, sweep), sweep, "merged").set_index(["configuration", "metric"])
    assert tuple(paired.reset_index().columns) == tables.PAIRED_COLUMNS
    assert FIRST not in paired.index.get_level_values(0)
    for name in (SECOND, THIRD):
        own = AGGREGATES[name]
        row, test = paired.loc[(name, "task_aggregate")], stats.ttest_rel(own, AGGREGATES[FIRST][:len(own)])
        assert row["n"] == len(own)
        assert row["difference"] == pytest.approx(np.mean(np.subtract(own, AGGREGATES[FIRST][:len(own)])))
        assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval()))
    # Four tests: Task Aggregate and AUC, a tenth of it, of two configurations. Smallest p times 4, and so on upwards.
    raw = sorted(stats.ttest_rel(AGGREGATES[name], AGGREGATES[FIRST][:len(AGGREGATES[name])]).pvalue
                 for name in (SECOND, SECOND, THIRD, THIRD))
    corrected = np.minimum(np.maximum.accumulate(np.array(raw) * [4, 3, 2, 1]), 1)
    assert sorted(paired["p"].dropna()) == pytest.approx(corrected)
    assert paired.loc[(SECOND, "task_aggregate"), "told_apart"]
    assert not paired.loc[(THIRD, "task_aggregate"), "told_apart"]


def test_differences_without_spread_are_no_test(store, sweep):
    row = tables.paired(of(store, sweep), sweep, "merged").set_index(["configuration", "metric"]).loc[(SECOND, "mmlu")]
    assert (row["difference"], row["n"]) == (0, 4)
    assert np.isnan(row["p"])
    assert not row["told_apart"]


def test_one_seed_has_a_mean_and_neither_interval_nor_test(store):
    sweep = example_sweep.planned(store.root, seeds=(0,))
    for number in (0, 1):
        example_sweep.finished(store.root, sweep, number, 0, {"merged": {"task_aggregate": 0.5 + number / 10}})
    table = of(store, sweep)
    row = tables.summary(table, sweep, "merged").iloc[0]
    assert row["mean"] == 0.5
    assert np.isnan([row["low"], row["high"]]).all()
    paired = tables.paired(table, sweep, "merged")
    assert paired["difference"].iloc[0] == pytest.approx(0.1)
    assert paired["p"].isna().all()
    assert tables.wide(tables.summary(table, sweep, "merged"), "mean")["Task Aggregate"].tolist() == [
        "0.500 (one seed)", "0.600 (one seed)"]
    assert tables.describe(paired).startswith("No difference can be tested")


def test_the_wide_tables_say_mean_interval_missing_seeds_and_what_is_told_apart(store, sweep):
    table = of(store, sweep)
    means = tables.wide(tables.summary(table, sweep, "merged"), "mean").set_index("configuration")
    reach = stats.t.ppf(0.975, 2) * stats.sem(AGGREGATES[THIRD])
    assert means.loc[THIRD, "Task Aggregate"] == f"0.610 ± {reach:.3f}, n = 3"
    assert list(means.index) == [FIRST, SECOND, THIRD]
    assert means["Aggregate"].isna().all()
    paired = tables.paired(table, sweep, "merged")
    marked = tables.wide(paired, "difference", "+").set_index("configuration")["Task Aggregate"]
    assert marked[SECOND].startswith("+0.080 ± ")
    assert marked[SECOND].endswith(" ★")
    assert not marked[THIRD].endswith("★")
    assert tables.describe(paired).startswith("2 of 4 tested differences are told apart")


def test_the_base_is_a_mark_only_where_the_configurations_of_a_seed_share_it(store, sweep):
    assert tables.base(of(store, sweep)) == pytest.approx({"task_aggregate": 0.15, "mia_auc": 1.0})  # 0, .1, .2, .3
    table = of(store, sweep)
    other = (table["model"] == "base") & (table["configuration"] == SECOND)
    assert tables.base(table.assign(value=table["value"].where(~other, 0.9))) == {}


@pytest.mark.parametrize(("settings", "variants", "axis"), [
    (["merge.density=0.4,0.8"], (), ("merge.density", {"merge.density=0.4": 0.4, "merge.density=0.8": 0.8})),
    (["unlearn.lr=1e-4,1e-2"], (), ("unlearn.lr", {"unlearn.lr=1e-4": 1e-4, "unlearn.lr=1e-2": 1e-2})),
    (["merge.method=ties,linear"], (), None), (["merge.density=0.4,0.8", "lora.r=2,4"], (), None),
    (["merge.weights=[1,0],[0,1]"], (), None), (["merge.density=0.4,0.8"], [["a"], ["b", "lora.r=2"]], None),
    ([], [["a"], ["b", "lora.r=2"]], None), ([], (), None)])
def test_there_is_an_axis_where_one_number_alone_is_varied(store, settings, variants, axis):
    assert tables.axis(example_sweep.planned(store.root, settings, (0,), variants)) == axis


def test_a_value_beside_variants_of_an_older_plan_gives_no_axis(store):
    example_sweep.planned(store.root, ["merge.density=0.4,0.8"], (0,), name="both")
    grown = example_sweep.planned(store.root, [], (0,), [["a"], ["b", "lora.r=2"]], name="both")
    assert len(grown.configurations) == 4
    assert tables.axis(grown) is None


def test_a_sweep_without_any_run_has_empty_tables(store):
    sweep = example_sweep.planned(store.root)
    table = of(store, sweep)
    assert table.empty
    assert tables.models(table) == []
    assert tables.summary(table, sweep, "merged")["mean"].isna().all()
    assert tables.base(table) == {}


# ---- pictures ------------------------------------------------------------------------------------------------

def drawn(store, sweep, make=sweep_figures.dots, **settings):
    table = of(store, sweep)
    return make(tables.summary(table, sweep, "merged"), table, "merged", tables.base(table), **settings)


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_dots_show_the_mean_the_interval_and_each_seed_in_a_panel_per_metric(store, sweep):
    figure = drawn(store, sweep)
    means, seeds = named(figure, sweep_figures.MEAN), named(figure, sweep_figures.SEEDS)
    assert len(means) == len(seeds) == 4
    assert list(means[0].x) == pytest.approx([np.mean(values) for values in AGGREGATES.values()])
    assert list(means[0].y) == [0, 1, 2]
    reach = stats.t.ppf(0.975, 2) * stats.sem(AGGREGATES[THIRD])
    assert means[0].error_x.array[2] == pytest.approx(reach)
    assert sorted(seeds[0].x) == sorted(value for values in AGGREGATES.values() for value in values)
    assert set(np.round(seeds[0].y - sweep_figures.SEED_SHIFT).astype(int)) == {0, 1, 2}
    assert [trace.x[0] for trace in named(figure, sweep_figures.BASE)] == pytest.approx([0.15, 1.0])
    assert [figure.layout[name].title.text for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4")] == [
        "Task Aggregate", "MIA AUC", "MMLU", "Aggregate"]


def test_lines_go_over_the_number_with_a_thin_line_per_seed(store, sweep):
    figure = drawn(store, sweep, sweep_figures.lines, axis=tables.axis(sweep))
    mean = named(figure, sweep_figures.MEAN)[0]
    assert list(mean.x) == [0.4, 0.6, 0.8]
    assert list(mean.y) == pytest.approx([np.mean(values) for values in AGGREGATES.values()])
    first = [trace for trace in named(figure, sweep_figures.SEEDS) if trace.yaxis == "y"]
    assert [list(trace.y) for trace in first] == [[0.5, 0.58, 0.52], [0.6, 0.66, 0.58], [0.7, 0.79, 0.73], [0.55, 0.64]]
    assert figure.layout.xaxis.type == "linear"


def test_the_axis_of_a_number_that_grows_manyfold_is_logarithmic(store):
    sweep = example_sweep.planned(store.root, ["unlearn.lr=1e-4,1e-2"], (0,))
    example_sweep.finished(store.root, sweep, 0, 0, {"merged": {"task_aggregate": 0.5}})
    figure = drawn(store, sweep, sweep_figures.lines, axis=tables.axis(sweep))
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis3.title.text == "unlearn.lr (logarithmic)"


def test_a_long_or_odd_name_is_broken_into_lines_and_stays_text(store):
    variants = [["<b>bold</b>"], ["as long as a name may be " * 2, "lora.r=2"]]
    sweep = example_sweep.planned(store.root, [], (0,), variants)
    for number in (0, 1):
        example_sweep.finished(store.root, sweep, number, 0, {"merged": {"task_aggregate": 0.5}})
    figure = drawn(store, sweep)
    labels = figure.layout.yaxis.ticktext
    assert labels[0] == "&lt;b&gt;bold&lt;/b&gt;"
    assert labels[1].count("<br>") == sweep_figures.LINES - 1
    assert max(map(len, labels[1].split("<br>"))) <= sweep_figures.LINE
    assert "<b>" not in named(figure, sweep_figures.MEAN)[0].customdata[0][0]


@pytest.mark.parametrize("missing", tables.SUMMARY_COLUMNS)
def test_a_figure_names_the_column_that_its_table_lacks(store, sweep, missing):
    table = of(store, sweep)
    with pytest.raises(ValueError, match=f"needs the columns \\['{missing}'\\]"):
        sweep_figures.dots(tables.summary(table, sweep, "merged").drop(columns=missing), table, "merged", {})


def test_the_tables_take_a_frame_and_give_a_frame(store, sweep):
    assert isinstance(tables.paired(of(store, sweep), sweep, "no such model"), pd.DataFrame)
    assert tables.summary(of(store, sweep), sweep, "no such model")["n"].tolist() == [0] * 15
