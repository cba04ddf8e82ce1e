"""Tables of a run's training: its steps, its loss terms, what is drawn of them, and pairs of runs for Fig. 3."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from analysis import training
from tests import example_run
from unlearn_core import recipe as recipes
from unlearn_core.store import Store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return example_run.finished(tmp_path_factory.mktemp("runs"))


# ---- steps

def test_steps_hold_one_row_per_optimizer_step_of_both_models(finished):
    table = training.steps(finished)
    assert list(table.columns) == ["model", *training.STEP_COLUMNS]
    assert table.groupby("model").size().to_dict() == {"model_1": example_run.STEPS, "model_2": example_run.STEPS // 2}
    assert len(training.base_steps(finished)) == example_run.BASE_STEPS


def test_steps_of_a_run_that_has_not_trained_are_empty_and_keep_their_columns(tmp_path):
    table = training.steps(example_run.create(tmp_path))
    assert list(table.columns) == ["model", *training.STEP_COLUMNS]
    assert table.empty


def test_a_number_that_an_older_run_did_not_log_is_missing(tmp_path):
    run = example_run.create(tmp_path)
    run.append_step("model_1", {"step": 1, "loss": 2.5})
    row = training.steps(run).iloc[0]
    assert row["loss"] == 2.5
    assert math.isnan(row["npo_brake"])


def test_weighted_terms_add_up_to_the_total_and_the_total_is_the_same_unweighted(finished):
    steps = training.steps(finished)
    for weighted in (True, False):
        long = training.loss_components(steps, weighted)
        wide = long.pivot(index=["model", "step"], columns="component", values="value")
        adds_up = np.allclose(wide["npo"] + wide["gdr"] + wide["klr"], wide["loss"])
        assert adds_up is weighted
        assert sorted(wide["loss"]) == sorted(steps["loss"])


def test_thin_keeps_ends_and_extremes_and_the_order():
    values = np.sin(np.arange(50_000) / 500)
    values[12_345], values[23_456] = 9.0, -9.0
    frame = pd.DataFrame({"step": np.arange(50_000), "value": values})
    thinned = training.thin(frame, "value", limit=200)
    assert len(thinned) <= 200
    assert {0, 12_345, 23_456, 49_999} <= set(thinned["step"])
    assert thinned["step"].is_monotonic_increasing


def test_thin_leaves_a_short_series_as_it_is_but_for_missing_values():
    frame = pd.DataFrame({"step": [1, 2, 3], "value": [5.0, None, 4.0]})
    assert list(training.thin(frame, "value", limit=200)["step"]) == [1, 3]


def test_an_overlay_marks_runs_with_letters_and_one_run_with_nothing(finished):
    steps = training.steps(finished)
    two = training.overlay({"first": steps, "second": steps.iloc[:3]})
    assert list(two.columns) == ["run", "mark", "model", *training.STEP_COLUMNS]
    assert two.groupby(["run", "mark"]).size().to_dict() == {("first", "A"): len(steps), ("second", "B"): 3}
    assert set(training.overlay({"first": steps})["mark"]) == {""}


def test_terms_that_a_run_did_not_use_are_neither_shown_nor_named(finished):
    steps = training.steps(finished)
    assert training.terms(steps) == ["npo", "gdr", "klr"]
    assert training.terms(steps.assign(ga=1.0)) == ["npo", "gdr", "klr", "ga"]
    more = dataclasses.replace(finished.recipe().model_1, klr_weight=0.0, refusal_weight=0.5)
    assert training.weights_in_words(more) == "NPO 0.4, GDR 0.2, KLR 0, refusals 0.5"


def test_loss_components_keep_the_marks_of_an_overlay(finished):
    steps = training.steps(finished)
    long = training.loss_components(training.overlay({"a": steps, "b": steps}), weighted=True)
    assert long.groupby("mark").size().to_dict() == {"A": 4 * len(steps), "B": 4 * len(steps)}


def test_a_reading_has_every_number_of_a_step_for_each_model_that_has_it(finished):
    steps = training.overlay({finished.id: training.steps(finished)})
    table = training.reading(steps, 60)
    row = next(row for row in finished.steps("model_1") if row["step"] == 60)
    assert list(table.columns) == [("model_1", ""), ("model_2", "")]
    assert table.loc["NPO brake", ("model_1", "")] == row["npo_brake"]
    assert len(table) == len(training.STEP_COLUMNS) - 1  # all but the step itself
    assert list(training.reading(steps, 61).columns) == [("model_1", "")]  # model_2 ended at step 60
    assert training.reading(steps, 10_000).empty


# ---- what is drawn

def naive_smooth(values, reach):
    """Mean over the neighbours that exist, written as a loop."""
    means = []
    for index, value in enumerate(values):
        near = [v for v in values[max(index - reach, 0):index + reach + 1] if not math.isnan(v)]
        means.append(float("nan") if math.isnan(value) else sum(near) / len(near))
    return means


@pytest.mark.parametrize("reach", [0, 1, 3, 100])
def test_smoothing_is_the_mean_of_the_neighbours_and_leaves_gaps_gaps(reach):
    values = np.random.default_rng(0).normal(size=40)
    values[[0, 7, 8]] = np.nan
    assert training.smooth(pd.Series(values), reach).tolist() == pytest.approx(naive_smooth(values, reach), nan_ok=True)


def test_smoothing_leaves_a_straight_line_where_it_is():
    line = pd.Series(np.arange(20.0))
    assert training.smooth(line, 4)[4:-4].tolist() == pytest.approx(line[4:-4].tolist())  # centred: no lag


def test_a_linear_view_shows_everything_and_a_log_view_counts_what_it_cannot_show():
    values = np.array([-1.0, 0.0, 1.0, 10.0, np.nan])
    assert training.view(values, log=False, cut=False) == (None, 0)
    assert training.view(values, log=True, cut=False) == (None, 2)


def test_a_cut_view_ends_at_the_outer_quantiles_and_counts_what_lies_beyond():
    values = np.concatenate([np.linspace(0, 1, 1000), [50.0, -50.0]])
    (low, high), outside = training.view(values, log=False, cut=True)
    inner = np.quantile(values, [0.01, 0.99])
    assert low < inner[0] < inner[1] < high < 1.1
    assert outside == int(((values < low) | (values > high)).sum())
    assert outside >= 2


def test_a_cut_log_view_counts_in_powers_of_ten():
    values = np.concatenate([np.full(1000, 10.0), [1e9, 0.0]])
    (low, high), outside = training.view(values, log=True, cut=True)
    assert low < 1 < high < 2  # log10 of 10
    assert outside == 2  # 1e9 above, 0 nowhere


def test_a_view_of_nothing_has_no_limits():
    assert training.view(np.array([np.nan]), log=False, cut=True) == (None, 0)
    assert training.view(np.array([-1.0]), log=True, cut=True) == (None, 1)


# ---- NPO alone

@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """A run of the demo recipe, its counterpart of NPO alone, and NPO alone with another seed."""
    store, demo = Store(tmp_path_factory.mktemp("runs")), recipes.load("demo")
    other = recipes.load("demo", ["seed=7"])
    return [store.create(recipe, {"seed": recipe.seed})
            for recipe in (demo, training.npo_alone(demo), training.npo_alone(other))]


def test_npo_alone_differs_in_the_weights_of_the_retain_terms_and_in_the_name():
    demo = recipes.load("demo")
    changed = {name for name, _, _ in recipes.differing(demo, training.npo_alone(demo))}
    assert changed == {"name", "model_1.gdr_weight", "model_1.klr_weight", "model_2.gdr_weight", "model_2.klr_weight"}
    assert training.is_npo_alone(training.npo_alone(demo))
    assert not training.is_npo_alone(demo)


def test_partners_are_of_the_other_kind_and_the_exact_counterpart_comes_first(trio):
    demo, bare, other_seed = trio
    assert [run.id for run in training.partners(demo, [other_seed, demo, bare])] == [bare.id, other_seed.id]
    assert [run.id for run in training.partners(bare, trio)] == [demo.id]
    assert training.further_differences(demo.recipe(), bare.recipe()) == []
    assert training.further_differences(demo.recipe(), other_seed.recipe()) == ["seed"]


def test_what_no_step_depends_on_is_no_difference_between_trainings():
    demo = recipes.load("demo")
    same = recipes.load("demo", ["name=other", "merge.density=0.5", "evaluation.batch_size=7", "threads=2"])
    assert training.further_differences(demo, same) == []
    assert training.further_differences(demo, recipes.load("demo", ["model_2.beta=0.2"])) == ["model_2.beta"]


def test_the_command_for_npo_alone_gives_exactly_its_recipe(trio):
    command = training.npo_alone_command(trio[0])
    assert command[:4] == ["run", "demo", "--weights-of", trio[0].id]
    assert set(command[4::2]) == {"--set"}
    assert recipes.load("demo", command[5::2]) == training.npo_alone(trio[0].recipe())


def test_a_recipe_of_ones_own_has_no_such_command(finished):
    assert training.npo_alone_command(finished) is None  # "example" is no bundled recipe


def test_progress_is_the_share_of_the_planned_epochs(finished):
    table = training.progress(training.steps(finished), finished.recipe())  # 5 epochs planned
    last = table[table["model"] == "model_1"].iloc[-1]
    assert last["progress"] == pytest.approx(last["epoch"] / 5)


def test_npo_starts_at_its_weight_times_2_ln_2_over_beta():
    demo = recipes.load("demo")
    assert training.npo_start(demo.model_1) == pytest.approx(0.4 * 13.863, abs=1e-3)  # 5.545 in the paper's setting
    assert training.npo_start(demo.model_2) == pytest.approx(4.159, abs=1e-3)


def test_the_settings_table_shows_what_differs_and_nothing_else(trio):
    demo, bare, _ = (run.recipe() for run in trio)
    table = training.settings_table({"demo": demo, "bare": bare})
    assert table.loc["gdr_weight"].tolist() == ["0.2", "0.4", "0.0", "0.0"]
    assert list(table.columns) == [("model_1", "A"), ("model_2", "A"), ("model_1", "B"), ("model_2", "B")]
    assert "beta" not in table.index
    assert "seed of the run" not in table.index
