"""Scored merges as tables, figures and words: on rows written by hand, and the sizes of a sweep against the engine."""

import math

import numpy as np
import pytest

from analysis import merge_preview, merging, merging_figures, published, signs
from analysis.merging import Sweep
from tests import example_run, example_trajectory
from unlearn_core import cli
from unlearn_core.settings import Merge
from unlearn_core.trials import experiments, variants
from unlearn_core.vocabulary import SUB_SCORES

WIDTH = 0.05  # half of each interval


def row(kind, name, forget, retain, auc, *, ratio=1.0, width=WIDTH, **about):
    scores = example_trajectory.scores(forget, retain, auc) if retain > 0 else (
        {metric.key: forget if metric.key.startswith("forget") else 0.0 for metric in SUB_SCORES}
        | {"task_aggregate": 0.0, "mia_auc": auc, "mia_score": 1 - 2 * abs(auc - 0.5)})
    intervals = {key: [max(value - width, 0), min(value + width, 1)] for key, value in scores.items()
                 if key != "task_aggregate"}
    return {"kind": kind, "name": name, "norm_ratio": ratio, "cosines": {"model_1": 0.8, "model_2": 0.4},
            "scores": scores, "intervals": intervals, **about}


def density(value, retain, auc=0.5, **rest):
    return row("density", f"TIES, density {value:g}", 0.1, retain, auc, density=value, method="ties", level="factors",
               **rest)


METHODS = [  # name, (retain, norm ratio) as it comes, retain at one norm
    ("TIES on factors", (0.8, 1.0), 0.8), ("Linear on factors", (0.0, 4.0), 0.85), ("Mean on delta W", (0.6, 0.7), 0.7)]
ROWS = [
    *(density(value, retain) for value, retain in ((1.0, 0.8), (0.2, 0.4), (0.6, 0.72), (0.4, 0.69), (0.8, 0.75))),
    *(made for name, (retain, ratio), then in METHODS for made in (
        row("method", name, 0.1, retain, 0.9, ratio=ratio, method="ties", level="factors", density=0.8),
        row("method at one norm", name, 0.1, then, 0.6 if "Mean" in name else 0.7, method="ties", level="factors",
            density=0.8))),
    *(row("path", name, 0.1, 0.6 + 0.1 * place, 0.2 + 0.3 * place, position=place) for place, name in (
        (2.0, "model_2"), (0.0, "model_1"), (1.0, "merged"), (0.5, "model_1 to merged, 0.5"))),
    *(row("surface", f"{one:g} : {two:g}", 1 - max(one, two), 1.0 - 0.4 * one, 1 - one, ratio=one + two,
          weights=[one, two]) for one in (0.0, 0.5, 1.0) for two in (0.0, 0.5, 1.0)),
]


def write(run, rows=None, documents=8):
    run.write_merges({"documents_per_task": documents, "seed": 3, "mmlu_limit": -1, "max_new_tokens": 32,
                      "rows": ROWS if rows is None else rows})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write(example_run.finished(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def frame(run):
    return merging.table(run)


# ---- tables

def test_a_row_has_its_scores_their_intervals_and_cautious_ones_of_the_means(frame):
    assert len(frame) == len(ROWS)
    own = merging.of_kind(frame, "density").iloc[0]
    assert (own["density"], own["forget"], own["retain"]) == pytest.approx((0.2, 0.1, 0.4))
    assert (own["retain_low"], own["retain_high"]) == pytest.approx((0.35, 0.45))  # all six are 0.4 +- 0.05
    assert own["task_aggregate"] == pytest.approx(12 / (6 / 0.9 + 6 / 0.4))
    assert (own["cosine_1"], own["cosine_2"], own["mia_auc_low"]) == pytest.approx((0.8, 0.4, 0.45))
    assert "task_aggregate_low" not in frame
    assert math.isnan(own["position"])


def test_rows_rise_along_what_varies_and_stand_at_a_place_once(frame):
    assert merging.of_kind(frame, "density")["density"].tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert merging.of_kind(frame, "path")["name"].tolist() == [
        "model_1", "model_1 to merged, 0.5", "merged", "model_2"]
    assert len(merging.of_kind(frame, "surface")) == 9


def test_a_run_without_merges_has_an_empty_table_with_all_columns(tmp_path):
    empty = merging.table(example_run.create(tmp_path))
    assert empty.empty
    assert set(merging.COLUMNS) <= set(empty)
    assert merging.of_kind(empty, "surface").empty


def test_odd_rows_lose_what_is_odd_and_nothing_breaks(tmp_path):
    odd = [row("density", "a", 0.1, 0.8, 0.5, density="much"), row("surface", "b", 0.1, 0.8, 0.5, weights=5),
           row("surface", "c", 0.1, 0.8, 0.5, weights=[1, 0]), row("surface", "c", 0.1, 0.7, 0.5, weights=[1, 0]),
           {"kind": "path", "name": "d", "position": 1, "norm_ratio": 1, "cosines": {}, "scores": {}, "intervals": {}},
           row("density", "e", 0.1, 0.8, 0.5, density=0.5)]
    found = merging.table(write(example_run.create(tmp_path), odd))
    assert merging.of_kind(found, "density")["name"].tolist() == ["e"]
    assert merging.of_kind(found, "surface")["retain"].tolist() == pytest.approx([0.8])
    assert merging.describe_path(merging.of_kind(found, "path")) == ""
    assert "only one" in merging.describe_density(merging.of_kind(found, "density"), "retain")
    assert merging.of_kind(found, "path")["forget"].isna().all()


def test_a_reading_lists_the_scores_with_their_intervals(frame):
    table = merging.reading(merging.of_kind(frame, "density").iloc[0]).set_index("metric")
    assert len(table) == 14
    assert table.loc["MIA AUC"].tolist() == pytest.approx([0.5, 0.45, 0.55])
    assert table.loc["Task Aggregate", ["low", "high"]].isna().all()


# ---- methods

def test_methods_are_ranked_within_their_scale_and_sorted_by_the_score_as_they_come(frame):
    found = merging.methods(frame)
    assert found["name"].tolist()[::2] == ["TIES on factors", "Mean on delta W", "Linear on factors"]
    assert dict(zip(zip(found["kind"], found["name"], strict=True), found["rank"], strict=True)) == {
        ("method", "TIES on factors"): 1, ("method", "Mean on delta W"): 2, ("method", "Linear on factors"): 3,
        ("method at one norm", "Linear on factors"): 1, ("method at one norm", "TIES on factors"): 2,
        ("method at one norm", "Mean on delta W"): 3}


def test_the_finding_says_what_size_alone_does(frame):
    spread, scale, order, leak = merging.describe_methods(merging.methods(frame))
    assert "0.000 to 0.847 as they come, 0.787 to 0.874 once" in spread  # 12 / (6 / 0.9 + 6 / retain)
    assert "rank correlation of -1.00 (n = 3 methods)" in scale  # |log| 0, 0.36, 1.39: score 1st, 2nd, 3rd
    assert "TIES on factors is best as it comes and number 2 of 3 at one norm, where Linear on factors" in order
    assert "rank correlation of -0.50" in order  # ranks 1 2 3 against 2 3 1: 1 - 6 * 6 / (3 * 8)
    assert "Mean on delta W has the AUC nearest to 0.5: 0.600 (0.55 to 0.65)" in leak


def test_too_few_methods_are_not_compared(frame):
    own = merging.methods(frame[~frame["name"].str.startswith("Mean")])
    assert merging.describe_methods(own) == [
        "Too few methods were scored both as they come and at one norm to compare them: 2."]


def test_both_parents_are_named_for_comparison(frame):
    said = merging.describe_parents(frame)
    assert f"Model 1: {12 / (6 / 0.9 + 6 / 0.6):.3f} and 0.200; Merged: " in said
    assert merging.describe_parents(frame[frame["kind"] == "method"]) == ""


# ---- density

def test_a_plateau_ends_where_intervals_no_longer_overlap(frame):
    """Retain 0.40 .69 .72 .75 .80, each +- 0.05: 0.69 reaches 0.74 and misses 0.75, the lower end of the best."""
    own = merging.of_kind(frame, "density")
    assert merging.same_as_best(own, "retain") == (1.0, [0.6, 0.8, 1.0])
    assert merging.same_as_best(own, "task_aggregate") == (1.0, [0.6, 0.8, 1.0])
    assert "best at density 1 (0.800); a plateau from 0.6 to 1, which ends below 0.6" in merging.describe_density(
        own, "retain")
    assert "none of the 5 densities from 0.2 to 1 is told apart" in merging.describe_density(own, "mia_auc")


def test_the_best_auc_is_the_one_nearest_to_a_half_and_a_peak_stands_alone(tmp_path):
    rows = [density(value, 0.8, auc) for value, auc in ((0.4, 0.1), (0.6, 0.45), (0.8, 0.9))]
    own = merging.of_kind(merging.table(write(example_run.create(tmp_path), rows)), "density")
    assert merging.same_as_best(own, "mia_auc") == (0.6, [0.6])
    assert "a peak" in merging.describe_density(own, "mia_auc")


def test_the_plateau_is_unbroken(tmp_path):
    rows = [density(value, retain) for value, retain in ((0.4, 0.8), (0.6, 0.2), (0.8, 0.8), (1.0, 0.79))]
    own = merging.of_kind(merging.table(write(example_run.create(tmp_path), rows)), "density")
    assert merging.same_as_best(own, "retain") == (0.4, [0.4])
    assert merging.same_as_best(own.iloc[1:].reset_index(drop=True), "retain") == (0.8, [0.8, 1.0])


def test_what_has_no_interval_is_not_told_apart_and_what_was_not_measured_is_said(tmp_path):
    rows = [density(value, retain) | {"intervals": {}} for value, retain in ((0.4, 0.2), (0.8, 0.8))]
    rows[0]["scores"].pop("mia_auc"), rows[1]["scores"].pop("mia_auc")
    own = merging.of_kind(merging.table(write(example_run.create(tmp_path), rows)), "density")
    assert merging.same_as_best(own, "retain") == (0.8, [0.4, 0.8])
    assert merging.describe_density(own, "mia_auc") == "MIA AUC: not measured."


# ---- path

def test_the_best_places_of_the_path_are_named(frame):
    said = merging.describe_path(merging.of_kind(frame, "path"))
    assert said == f"highest Task Aggregate {12 / (6 / 0.9 + 6 / 0.8):.3f} at 2, AUC nearest to 0.5 0.500 at 1"


# ---- what is told beside the numbers

def test_the_published_ranking_is_that_of_the_papers_table():
    assert published.merging_table().sort_values("aggregate")["method"].tolist() == [
        "Linear", "DARE-Linear", "Magnitude Prune", "DARE-TIES", "TIES"]


# ---- the job

def test_the_number_of_evaluations_is_that_of_the_engine(smoke_run):
    parents = experiments.load_parents(smoke_run, smoke_run.recipe(), "cpu")
    made = {part: len(list(getattr(variants, part)(parents))) for part in merging.EVALUATIONS}
    assert made == merging.EVALUATIONS
    assert Sweep(("density", "path", "surface"), (0.2, 0.5)).evaluations == 2 + 9 + 25
    assert Sweep(("density",)).evaluations == 0


def test_the_arguments_of_a_sweep_are_read_back_by_the_command_line():
    asked = Sweep(("density", "methods", "surface"), (0.2, 0.55), 4, 7, 0)
    options = cli.parser().parse_args(["merge-sweep", "RUN", *asked.arguments])
    assert experiments.grid(options.density) == [0.2, 0.55]
    assert (options.methods, options.path, options.surface) == (True, False, True)
    assert (options.documents, options.seed, options.mmlu) == (4, 7, 0)
    assert options.half == "development"
    whole = cli.parser().parse_args(["merge-sweep", "RUN", *Sweep(("path",), half="all").arguments])
    assert (whole.mmlu, whole.half) == (-1, "all")


# ---- figures

def test_every_method_has_an_open_and_a_filled_mark_in_each_panel_of_a_score(frame):
    figure = merging_figures.method_dots(merging.methods(frame))
    assert len(figure.data) == 5 * 2 + 2
    assert list(figure.layout.yaxis.ticktext) == ["TIES · factors", "Mean · ΔW", "Linear · factors"]
    assert {len(trace.x) for trace in figure.data} == {3}
    assert figure.layout.xaxis.type == "log"
    with_bars = [trace for trace in figure.data if trace.error_x.array is not None]
    assert len(with_bars) == 6  # AUC, forget and retain; the Task Aggregate has no interval


def test_the_density_is_marked_and_the_scores_share_one_scale(frame):
    figure = merging_figures.density_curves(merging.of_kind(frame, "density"), 0.8)
    assert [trace.error_y.array is None for trace in figure.data] == [True, False, False, False]
    assert sum(shape.x0 == shape.x1 == 0.8 for shape in figure.layout.shapes) == 4
    assert sum(shape.y0 == shape.y1 == 0.5 for shape in figure.layout.shapes) == 1
    assert {tuple(axis.range) for axis in figure.select_yaxes()} == {(-0.03, 1.05)}


def test_the_stations_of_the_path_look_like_their_models(frame):
    figure = merging_figures.path_curves(merging.of_kind(frame, "path"))
    assert {trace.name for trace in figure.data} >= {"Model 1", "Merged", "Model 2"}
    assert list(figure.layout.xaxis3.tickvals) == [0, 1, 2]


def test_the_maps_share_limits_and_the_auc_diverges_around_a_half(frame):
    own = merging.of_kind(frame, "surface")
    marks = {"base": (0.0, 0.0), "model_1": (1.0, 0.0), "mean": (0.5, 0.5), "merged": (0.6, 0.4), "here": (1.0, 0.5)}
    figure = merging_figures.surface(own, marks, "0.5 : 1")
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [trace.coloraxis for trace in maps] == ["coloraxis", "coloraxis2", "coloraxis", "coloraxis"]
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    assert (figure.layout.coloraxis2.cmin, figure.layout.coloraxis2.cmid, figure.layout.coloraxis2.cmax) == (0, 0.5, 1)
    np.testing.assert_allclose(maps[3].z, [[1, 0.8, 0.6]] * 3)  # retain falls along w1, which lies across
    scatters = [trace for trace in figure.data if trace.type == "scatter"]
    squares = [trace for trace in scatters if trace.marker.symbol == "square"]
    assert [list(trace.customdata) for trace in squares] == [own["name"].tolist()] * 4
    assert [tuple(trace.x) for trace in scatters if trace.marker.symbol == "square-open"] == [(0.5,)] * 4
    assert {trace.name for trace in figure.data if trace.showlegend} == {
        "Base", "Model 1", "Plain mean", "Merged (nearest)", "You are here"}
    assert len(merging_figures.surface(own.head(1), {}).data) == 12  # a sweep that has just begun


def test_the_preview_draws_both_merges_and_unknown_numbers_leave_gaps(smoke_run):
    found = merge_preview.pooled(signs.read(smoke_run))
    here, run = (merge_preview.over_density(found, choice) for choice in (Merge("linear"), Merge()))
    figure = merging_figures.over_density(here, run, 0.5, 0.8)
    assert len(figure.data) == 6
    assert np.isnan(figure.data[0].y).all()
    assert np.isfinite(figure.data[3].y).all()
    bars = merging_figures.states(run.head(2).assign(merge=["Here", "Run"]))
    assert [trace.type for trace in bars.data] == ["bar"] * 6
    assert sum(trace.x[0] for trace in bars.data) == pytest.approx(1)



@pytest.mark.parametrize("draw", [merging_figures.method_dots, merging_figures.path_curves, merging_figures.states])
def test_a_figure_names_the_columns_that_a_table_lacks(frame, draw):
    with pytest.raises(ValueError, match="the figure needs the columns"):
        draw(frame[["kind"]])
