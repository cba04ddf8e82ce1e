"""Figures: what is drawn where, in whose identity, and that both page colours can carry it."""

import numpy as np
import pandas as pd
import pytest

from analysis import figures, frames, published, theme
from tests import example_run

PAGES = ("#FFFFFF", "#0F1418")  # backgrounds of the light and the dark page, as in .streamlit/config.toml


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return example_run.finished(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def steps(run):
    return frames.steps(run)


def drawn(figure, name):
    return [trace for trace in figure.data if trace.name == name]


# ---- identity

def test_each_model_has_its_own_colour_or_dash_and_its_own_marker():
    looks = [(style.color, style.dash) for style in theme.STYLES.values()]
    assert len(set(looks)) == len(looks)
    markers = [style.symbol for style in theme.STYLES.values()]
    assert len(set(markers)) == len(markers)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("color", sorted({style.color for style in theme.STYLES.values()} | {theme.INK, theme.GHOST}))
def test_colours_stand_out_from_light_and_dark_pages(color, page):
    assert contrast(color, page) >= 3  # WCAG 2.2, success criterion 1.4.11: graphical objects


def contrast(first, second):
    """Contrast ratio of WCAG 2.2: (lighter + 0.05) / (darker + 0.05) of the relative luminances."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def luminance(color):
    parts = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_contrast_oracle_gives_21_for_black_on_white():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)


def test_a_model_keeps_its_look_when_others_are_left_out(run):
    scores = frames.score_table(run)
    alone = figures.tradeoff(scores[scores["model"] == "merged"])
    everyone = figures.tradeoff(scores)
    assert drawn(alone, "Merged")[0].marker == drawn(everyone, "Merged")[0].marker


def test_model_2_is_dashed_and_model_1_solid(steps):
    figure = figures.npo_brake(steps)
    assert drawn(figure, "Model 1")[0].line.dash == "solid"
    assert drawn(figure, "Model 2")[0].line.dash == "dash"


# ---- overview

def test_tradeoff_places_each_model_at_its_two_scores_with_its_interval(run):
    scores = frames.score_table(run)
    figure = figures.tradeoff(scores)
    assert len(figure.data) == len(scores)
    merged, row = drawn(figure, "Merged")[0], scores.set_index("model").loc["merged"]
    assert (merged.x[0], merged.y[0]) == (row["task_aggregate"], row["mia_auc"])
    assert merged.y[0] + merged.error_y.array[0] == pytest.approx(row["mia_auc_high"])
    assert merged.y[0] - merged.error_y.arrayminus[0] == pytest.approx(row["mia_auc_low"])


def test_tradeoff_leaves_out_a_model_without_an_auc(run):
    scores = frames.score_table(run)
    scores.loc[scores["model"] == "model_1", "mia_auc"] = np.nan
    assert drawn(figures.tradeoff(scores), "Model 1") == []


def test_a_published_score_without_its_auc_is_drawn_at_both_aucs_it_fits(run):
    figure = figures.tradeoff(frames.score_table(run), published.table())
    best = next(t for t in figure.data if t.customdata is not None and "AILS-NTUA" in t.customdata[0])
    assert list(best.y) == pytest.approx([0.5 - 0.0765, 0.5 + 0.0765])  # MIA score 0.847: (1 - 0.847) / 2 = 0.0765
    assert best.marker.color == theme.GHOST


def test_sub_scores_are_dots_at_their_values_and_gaps_have_no_dot(run):
    table = frames.sub_scores(run)
    table.loc[(table["model"] == "base") & (table["metric"] == "forget_knowledge_1"), "value"] = np.nan
    left, right = drawn(figures.sub_scores(table), "Base")
    assert (len(left.x), len(right.x)) == (5, 6)
    expected = table[(table["model"] == "base") & (table["split"] == "retain")]["value"]
    assert list(right.x) == list(expected)


def test_sub_scores_mark_the_ideals_0_on_forget_and_1_on_retain(run):
    lines = figures.sub_scores(frames.sub_scores(run)).layout.shapes
    assert [(line.x0, line.xref) for line in lines] == [(0, "x"), (1, "x2")]


# ---- training

def test_loss_components_have_a_panel_per_term_with_both_models(steps):
    figure = figures.loss_components(frames.loss_components(steps, weighted=True))
    assert len(drawn(figure, "Model 1")) == len(drawn(figure, "Model 2")) == 4
    own = steps[steps["model"] == "model_1"]
    panel = drawn(figure, "Model 1")[0]
    assert list(panel.x) == list(own["step"])
    assert list(panel.y) == list(own["npo_weighted"])


def test_answer_nll_draws_each_reference_dotted_beside_its_line(steps):
    figure = figures.answer_nll(steps)
    references = drawn(figure, "Reference (before unlearning)")
    assert len(references) == 4
    assert {line.line.dash for line in references} == {"dot"}


@pytest.mark.parametrize("x", frames.X_COLUMNS)
def test_every_training_figure_can_be_drawn_over_every_x_axis(run, steps, x):
    made = [figures.loss_components(frames.loss_components(steps, False), x), figures.answer_nll(steps, x),
            figures.npo_brake(steps, x), figures.optimizer(steps, x), figures.base_loss(frames.base_steps(run), x)]
    for figure in made:
        assert figures.X_TITLES[x] in [axis.title.text for axis in figure.select_xaxes()]
        assert all(axis.title.text for axis in figure.select_yaxes(col=1))


def test_the_log_switch_turns_the_loss_axes(steps):
    components = frames.loss_components(steps, True)
    assert {axis.type for axis in figures.loss_components(components, log_y=True).select_yaxes()} == {"log"}
    assert {axis.type for axis in figures.loss_components(components).select_yaxes()} == {"linear"}


def test_a_long_training_is_drawn_with_a_bounded_number_of_points():
    table = pd.DataFrame({"step": np.arange(30_000.0), "loss": np.random.default_rng(0).random(30_000)})
    line = figures.base_loss(table).data[0]
    assert len(line.x) <= frames.MAX_POINTS
    assert max(line.y) == table["loss"].max()


@pytest.mark.parametrize("draw", [
    figures.tradeoff, figures.sub_scores, figures.loss_components, figures.answer_nll, figures.npo_brake,
    figures.optimizer, figures.base_loss,
])
def test_a_table_without_the_needed_columns_is_refused_by_name(draw):
    with pytest.raises(ValueError, match="the figure needs the columns"):
        draw(pd.DataFrame({"other": [1.0]}))
