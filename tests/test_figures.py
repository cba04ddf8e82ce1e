"""Figures: what is drawn where, in whose identity, and that both page colours can carry it."""

import numpy as np
import pandas as pd
import pytest

from analysis import comparison, figures, frames, lineage, published, theme
from tests import example_run

PAGES = ("#FFFFFF", "#0F1418")  # backgrounds of the light and the dark page, as in .streamlit/config.toml


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return example_run.finished(tmp_path_factory.mktemp("runs"))


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


# ---- overview, forget success against retention

@pytest.fixture(scope="module")
def points(run):
    return frames.with_halves(frames.score_table(run), frames.sub_scores(run))


def marks(figure, name):
    """Traces of a model that hold marks, without the one that stands for it in the legend."""
    return [trace for trace in drawn(figure, name) if trace.x[0] is not None]


def test_retention_places_each_model_and_fills_it_by_its_signed_auc(points):
    figure, row = figures.retention(points), points.set_index("model").loc["merged"]
    (merged,) = marks(figure, "Merged")
    assert (merged.x[0], merged.y[0]) == (row["forget_success"], row["retention"])
    assert merged.marker.color[0] == row["mia_auc"]
    assert merged.marker.symbol == theme.style("merged").symbol
    assert merged.marker.line.color == theme.style("merged").color


def test_the_filling_is_symmetric_around_the_ideal_one_half(points):
    axis = figures.retention(points).layout.coloraxis
    assert (axis.cmin, axis.cmid, axis.cmax) == (0, 0.5, 1)
    assert [place for place, _ in axis.colorscale] == [0, 0.5, 1]


def test_a_model_without_an_auc_is_drawn_without_filling_and_one_without_a_half_not_at_all(points):
    table = points.copy()
    table.loc[table["model"] == "merged", "mia_auc"] = np.nan
    table.loc[table["model"] == "model_1", "retention"] = np.nan
    figure = figures.retention(table)
    assert marks(figure, "Merged")[0].marker.symbol == "diamond-open"
    assert drawn(figure, "Model 1") == []


def test_the_pareto_line_runs_through_its_models_from_left_to_right(points):
    line = drawn(figures.retention(points), "Pareto line")[0]
    known = points[frames.on_pareto_line(points)]
    assert list(line.x) == sorted(known["forget_success"])
    assert list(line.y) == sorted(known["retention"], reverse=True)


# ---- overview, several runs

@pytest.fixture(scope="module")
def two(run, tmp_path_factory):
    other = example_run.finished(tmp_path_factory.mktemp("other"), seed=5)
    tables = [(frames.with_halves(frames.score_table(r), frames.sub_scores(r)), frames.sub_scores(r))
              for r in (run, other)]
    scores = comparison.stacked([scores for scores, _ in tables])
    return scores, comparison.stacked([subs.assign(run=f"{n} · r") for n, (_, subs) in enumerate(tables, start=1)])


@pytest.mark.parametrize("draw", [figures.tradeoff, figures.retention])
def test_several_runs_keep_the_models_looks_and_are_told_apart_by_numbers(points, two, draw):
    scores, _ = two
    (alone,), (both,) = (marks(draw(frame), "Merged") for frame in (points, scores))
    assert both.marker.symbol == alone.marker.symbol
    assert both.marker.line == alone.marker.line
    assert (alone.text, list(both.text)) == (None, ["1", "2"])
    assert both.mode == "markers+text"


def test_merged_models_of_several_runs_have_their_numbers_beside_their_dots(two):
    _, sub_scores = two
    merged = sub_scores[sub_scores["model"] == "merged"]
    figure = figures.sub_scores_of_runs(merged)
    left, right = drawn(figure, "2 · r")
    assert set(left.text) | set(right.text) == {"2"}
    assert left.marker.color == theme.style("merged").color
    own = merged[(merged["number"] == 2) & (merged["split"] == "retain")]
    assert list(right.x) == list(own["value"])


def test_names_from_outside_are_text_in_a_figure(two):
    _, sub_scores = two
    figure = figures.sub_scores_of_runs(sub_scores[sub_scores["model"] == "merged"].assign(run="<a href='x'>1</a>"))
    assert all("<a" not in trace.name for trace in figure.data)


# ---- lineage

def test_the_lineage_has_a_box_per_stage_and_dots_around_what_is_not_there_yet(tmp_path):
    figure = figures.lineage_graph(lineage.table(example_run.unfinished(tmp_path)))
    dashes = [shape.line.dash for shape in figure.layout.shapes]
    assert dashes == ["solid", "solid", "solid", "dot", "dot", "solid"]  # no model_2, no merged
    colors = [shape.line.color for shape in figure.layout.shapes]
    assert colors[2:5] == [theme.style(model).color for model in ("model_1", "model_2", "merged")]
    assert sum(note.showarrow for note in figure.layout.annotations) == len(lineage.ARROWS)


def test_a_path_with_markup_in_it_is_text_in_the_lineage(run):
    table = lineage.table(run)
    table.loc[0, "detail"] = "<a href='http://example.org'>data</a>"
    texts = [note.text for note in figures.lineage_graph(table).layout.annotations]
    assert not any("<a" in text for text in texts)
    assert any("&lt;a" in text for text in texts)


@pytest.mark.parametrize("draw", [figures.tradeoff, figures.sub_scores, figures.retention, figures.sub_scores_of_runs,
                                  figures.lineage_graph])
def test_a_table_without_the_needed_columns_is_refused_by_name(draw):
    with pytest.raises(ValueError, match="the figure needs the columns"):
        draw(pd.DataFrame({"other": [1.0]}))
