"""Figures of a run's training and of its checkpoints: what is drawn where, and in whose identity."""

import numpy as np
import pandas as pd
import pytest

from analysis import theme, training, training_figures, training_lines, trajectory, trajectory_figures
from analysis.training_figures import COMPOSITE, NPO_ALONE, REFERENCE
from analysis.training_lines import MAX_DRAWN, View
from tests import example_run, example_trajectory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = example_run.finished(tmp_path_factory.mktemp("runs"))
    example_trajectory.write(made)
    return made


@pytest.fixture(scope="module")
def steps(run):
    return training.steps(run)


@pytest.fixture(scope="module")
def two_runs(steps):
    return training.overlay({"one": steps, "other": steps.assign(loss=steps["loss"] + 1)})


@pytest.fixture(scope="module")
def scored(run):
    return trajectory.trajectory(run)


def drawn(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def lines(figure):
    return [trace for trace in figure.data if trace.mode == "lines"]


def texts(figure):
    return [annotation.text for annotation in figure.layout.annotations]


# ---- lines

def test_model_2_is_dashed_and_model_1_solid(steps):
    figure = training_figures.npo_brake(steps)
    assert drawn(figure, "Model 1")[0].line.dash == "solid"
    assert drawn(figure, "Model 2")[0].line.dash == "dash"


def test_loss_components_have_a_panel_per_term_with_both_models(steps):
    figure = training_figures.loss_components(training.loss_components(steps, weighted=True))
    assert len(drawn(figure, "Model 1")) == len(drawn(figure, "Model 2")) == 4
    own = steps[steps["model"] == "model_1"]
    panel = drawn(figure, "Model 1")[0]
    assert list(panel.x) == list(own["step"])
    assert list(panel.y) == list(own["npo_weighted"])


def test_answer_nll_draws_each_reference_dotted_beside_its_line(steps):
    figure = training_figures.answer_nll(steps)
    references = drawn(figure, REFERENCE)
    assert len(references) == 4
    assert {line.line.dash for line in references} == {"dot"}
    assert sum(line.showlegend for line in references) == 1


@pytest.mark.parametrize("x", training.X_COLUMNS)
def test_every_training_figure_can_be_drawn_over_every_x_axis(run, steps, x):
    view, components = View(x=x), training.loss_components(steps, False)
    made = [training_figures.loss_components(components, view), training_figures.answer_nll(steps, view),
            training_figures.npo_brake(steps, view), training_figures.optimizer(steps, view),
            training_figures.base_loss(training.base_steps(run), view)]
    for figure in made:
        assert training_lines.X_TITLES[x] in [axis.title.text for axis in figure.select_xaxes()]
        assert all(axis.title.text for axis in figure.select_yaxes(col=1))


def test_the_log_switches_turn_the_axes(steps):
    components = training.loss_components(steps, True)
    logged = training_figures.loss_components(components, View(log_x=True, log_y=True))
    plain = training_figures.loss_components(components)
    assert {axis.type for axis in logged.select_yaxes()} == {axis.type for axis in logged.select_xaxes()} == {"log"}
    assert {axis.type for axis in plain.select_yaxes()} == {axis.type for axis in plain.select_xaxes()} == {"linear"}


@pytest.mark.parametrize(("highest", "ticks"), [(3.0, None), (30.0, "D2"), (1e6, None)])
def test_a_log_axis_over_one_or_two_powers_of_ten_is_marked_at_1_2_and_5(highest, ticks):
    table = pd.DataFrame({"step": [1.0, 2.0], "loss": [1.0, highest]})
    assert training_figures.base_loss(table, View(log_y=True)).layout.yaxis.dtick == ticks


def test_a_long_training_is_drawn_with_a_bounded_number_of_points():
    table = pd.DataFrame({"step": np.arange(30_000.0), "loss": np.random.default_rng(0).random(30_000)})
    line = training_figures.base_loss(table).data[0]
    assert len(line.x) <= training.MAX_POINTS
    assert max(line.y) == table["loss"].max()


def test_many_long_runs_in_four_panels_share_the_points_that_a_browser_can_take():
    table = pd.DataFrame({"step": np.arange(8000.0), **dict.fromkeys(training.STEP_COLUMNS[1:], 1.0)})
    table["npo_weighted"] = np.random.default_rng(0).random(8000)
    both = pd.concat([table.assign(model=model) for model in ("model_1", "model_2")])
    runs = training.overlay({str(number): both for number in range(5)})
    figure = training_figures.loss_components(training.loss_components(runs, True), View(reach=5))
    assert sum(len(line.x) for line in lines(figure)) <= MAX_DRAWN


# ---- several runs

def test_another_run_has_its_models_colours_and_dashes_but_thinner_lines_and_its_letter(two_runs):
    figure = training_figures.npo_brake(two_runs)
    for model in ("Model 1", "Model 2"):
        first, second = drawn(figure, f"A · {model}")[0], drawn(figure, f"B · {model}")[0]
        assert (first.line.color, first.line.dash) == (second.line.color, second.line.dash)
        assert first.line.width > second.line.width
    written = [text for trace in figure.data if trace.mode == "text" for text in trace.text]
    assert {written.count("<b>A</b>"), written.count("<b>B</b>")} == {6}  # three places on each of two lines


def test_a_single_run_has_no_letters(steps):
    assert {trace.mode for trace in training_figures.npo_brake(training.overlay({"one": steps})).data} == {"lines"}


# ---- smoothing, cutting, pinning

def test_smoothing_keeps_the_raw_line_thin_behind_the_mean(steps):
    figure = training_figures.npo_brake(steps, View(reach=3))
    raw, mean = drawn(figure, "Model 1")
    own = steps.loc[steps["model"] == "model_1", "npo_brake"]
    assert list(raw.y) == list(own)
    assert list(mean.y) == pytest.approx(training.smooth(own, 3).tolist())
    assert raw.opacity < 0.5 < mean.opacity
    assert (raw.showlegend, mean.showlegend) == (False, True)


def test_without_smoothing_each_line_is_drawn_once_as_logged(steps):
    assert len(drawn(training_figures.npo_brake(steps), "Model 1")) == 1


def test_points_outside_the_view_are_counted_over_the_panel_that_cuts_them(steps):
    components = training.loss_components(steps.assign(klr_weighted=0.0), True)
    figure = training_figures.loss_components(components, View(log_y=True))
    assert [text for text in texts(figure) if "outside" in text] == [f"{len(steps)} points outside the view"]
    assert not any("outside" in text for text in texts(training_figures.loss_components(components)))


def test_cutting_outliers_ends_the_axis_before_a_spike_and_says_so(steps):
    spiked = steps.copy()
    spiked.loc[5, "grad_norm"] = 1e6
    figure = training_figures.optimizer(spiked, View(cut=True))
    assert max(next(figure.select_yaxes(row=2)).range) < 10
    assert any("outside the view" in text for text in texts(figure))
    assert next(training_figures.optimizer(spiked).select_yaxes(row=2)).range is None


def test_a_pinned_step_is_one_line_over_steps_and_one_per_model_over_epochs(steps):
    pinned = steps[steps["step"] == 24]  # epoch 1 of model_1, epoch 2 of model_2
    over_steps = training_figures.npo_brake(steps, View(pinned=pinned))
    assert [line.x0 for line in over_steps.layout.shapes if line.x0 == line.x1] == [24]
    over_epochs = training_figures.npo_brake(steps, View(x="epoch", pinned=pinned))
    upright = {line.x0: line.line.color for line in over_epochs.layout.shapes if line.x0 == line.x1}
    assert upright == {1: theme.style("model_1").color, 2: theme.style("model_2").color}


# ---- NPO alone

def test_fig_3_draws_both_totals_the_npo_term_the_start_and_the_floor(run, steps):
    table = training.progress(steps, run.recipe())
    pair = training.overlay({"both": table, "bare": table.assign(loss=table["npo_weighted"])}, (COMPOSITE, NPO_ALONE))
    figure = training_figures.against_npo_alone(pair, {"model_1": [5.545], "model_2": [4.159]}, View(x="progress"))
    total, retain = drawn(figure, f"{COMPOSITE} · Model 1")
    own = table[table["model"] == "model_1"]
    assert list(total.y) == list(own["loss"])
    assert list(retain.y) == list(own["retain_nll"])
    assert list(drawn(figure, f"{NPO_ALONE} · Model 1")[0].y) == list(own["npo_weighted"])
    assert list(drawn(figure, "NPO term of NPO+GDR+KLR")[0].y) == list(own["npo_weighted"])
    assert [line.y0 for line in figure.layout.shapes] == [5.545, 0, 4.159, 0]
    assert "5.545: start of NPO" in texts(figure)


# ---- scores over checkpoints

def test_score_curves_are_twelve_in_six_panels_and_three_summaries_per_model(scored):
    figure = trajectory_figures.score_curves(scored)
    for model in ("Model 1", "Model 2"):
        assert len(drawn(figure, f"{model}, forget")) == 6 + 1  # the panels and the mean
        assert len(drawn(figure, f"{model}, retain")) == 6 + 1 + 2  # and Task Aggregate and AUC
    assert texts(figure)[:9] == [
        "Regurgitation,<br>stories", "Regurgitation,<br>people with PII", "Regurgitation,<br>biographies",
        "Knowledge,<br>stories", "Knowledge,<br>people with PII", "Knowledge,<br>biographies",
        "Task Aggregate", "MIA AUC (ideal 0.5)", "Mean of the six sub-scores"]


def test_forget_and_retain_differ_in_dash_and_filling_and_share_the_models_colour(scored):
    figure = trajectory_figures.score_curves(scored)
    forget, retain = drawn(figure, "Model 1, forget")[0], drawn(figure, "Model 1, retain")[0]
    assert forget.line.color == retain.line.color == theme.style("model_1").color
    assert (forget.line.dash, retain.line.dash) == ("dot", "solid")
    assert (forget.marker.symbol, retain.marker.symbol) == ("square-open", "square")


def test_each_panel_marks_each_models_turning_point_and_the_auc_its_ideal(scored):
    shapes = trajectory_figures.score_curves(scored).layout.shapes
    upright = [line.x0 for line in shapes if line.x0 == line.x1]
    assert sorted(upright) == [30] * 9 + [60] * 9
    assert [line.y0 for line in shapes if line.y0 == line.y1] == [0.5]


def test_intervals_are_drawn_only_where_one_model_stands_alone(scored):
    alone = drawn(trajectory_figures.score_curves(scored[scored["model"] == "model_1"]), "Model 1, retain")
    auc = next(trace for trace in alone if list(trace.y) == [1.0, 0.9, 0.6, 0.3, 0.2])
    assert list(auc.error_y.arrayminus) == pytest.approx([0.1] * 5)
    both = drawn(trajectory_figures.score_curves(scored), "Model 1, retain")
    assert all(trace.error_y.array is None for trace in both)


def test_the_path_goes_from_the_base_through_every_checkpoint_to_the_end(scored):
    wide = trajectory.checkpoints(scored)
    best = trajectory.best_checkpoints(wide, "mia_auc")
    figure = trajectory_figures.score_path(wide, {"forget": 0.25, "retain": 0.75}, best)
    path = drawn(figure, "Model 1")[0]
    assert list(path.x) == pytest.approx([0.0, 0.5, 0.8, 0.9, 0.9])  # 1 - forget
    assert list(path.y) == pytest.approx([1.0, 0.4, 0.5, 0.7, 0.6])
    assert len(figure.layout.annotations) == 4 + 3  # arrows between the five and the four checkpoints
    merged, base = drawn(figure, "Merged (final)")[0], drawn(figure, "Base (step 0)")[0]
    assert (merged.x[0], merged.y[0], merged.marker.symbol) == (0.75, 0.75, "diamond")
    assert (base.x[0], base.y[0], base.marker.color) == (0, 1, theme.style("base").color)
    assert list(drawn(figure, "Best checkpoint")[0].x) == pytest.approx([0.8, 0.6])


def test_the_path_of_an_unmerged_run_has_no_diamond(scored):
    figure = trajectory_figures.score_path(trajectory.checkpoints(scored))
    assert drawn(figure, "Merged (final)") == drawn(figure, "Best checkpoint") == []


# ---- columns

@pytest.mark.parametrize("draw", [
    training_figures.loss_components, training_figures.answer_nll, training_figures.npo_brake,
    training_figures.optimizer, training_figures.base_loss, trajectory_figures.score_curves,
    trajectory_figures.score_path, lambda frame: training_figures.against_npo_alone(frame, {}),
])
def test_a_table_without_the_needed_columns_is_refused_by_name(draw):
    with pytest.raises(ValueError, match="the figure needs the columns"):
        draw(pd.DataFrame({"other": [1.0]}))
