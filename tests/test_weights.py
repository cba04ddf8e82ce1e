"""Tables and figures of weight changes: names of modules, sizes, angles, random directions, spectra."""

import numpy as np
import pandas as pd
import pytest
import torch

from analysis import panels, weight_angles, weights, weights_figures
from unlearn_core.errors import InputError
from unlearn_core.merging.task_vectors import Adapter, Factors
from unlearn_core.store import Run
from unlearn_core.weight_changes import geometry

RANK = 2
SIZES = {f"model.layers.{layer}.{name}": size for layer in (10, 2) for name, size in
         (("mlp.down_proj", (40, 70)), ("self_attn.q_proj", (40, 40)))} | {"lm_head": (90, 40)}


def random_adapter(seed, sizes=SIZES, rank=RANK):
    generator = torch.Generator().manual_seed(seed)
    return Adapter({name: Factors(torch.randn(rank, columns, generator=generator),
                                  torch.randn(rows, rank, generator=generator))
                    for name, (rows, columns) in sizes.items()}, {"r": rank, "lora_alpha": rank})


def dense(adapter):
    """{module: weight change in float64}."""
    return {name: (f.B.double() @ f.A.double()).numpy() for name, f in adapter.modules.items()}


ADAPTERS = {"model_1": random_adapter(1), "model_2": random_adapter(2), "merged": random_adapter(3)}
START, MIDDLE = random_adapter(4), random_adapter(5)
STEPS = [0, 7, 9]


@pytest.fixture
def measured():
    arrays = geometry.statistics(ADAPTERS, dict.fromkeys(SIZES, 10.0))
    products = geometry.split_products(START, [START, MIDDLE, ADAPTERS["model_1"]], ADAPTERS["model_1"])
    arrays |= {f"checkpoints/model_1/{level}": array for level, array in products.items()}
    return weights.Measured(arrays, {
        "schema": 1, "key": dict.fromkeys(ADAPTERS, "x"), "adapters": list(ADAPTERS), "modules": list(SIZES),
        "shapes": [list(size) for size in SIZES.values()], "ranks": dict.fromkeys(ADAPTERS, RANK),
        "steps": {"model_1": STEPS}, "entries": True})


# ---- names -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "layer", "kind"), [
    ("model.layers.3.self_attn.q_proj", 3, "self_attn.q_proj"),
    ("model.layers.31.mlp.down_proj", 31, "mlp.down_proj"),
    ("transformer.h.0.attn.c_proj", 0, "attn.c_proj"),
    ("layers.7.q", 7, "q"),
    ("3.q", 3, "q"),
    ("model.layers.2.mlp.experts.5.up_proj", 2, "mlp.experts.5.up_proj"),
    ("lm_head", None, "lm_head"),
    ("model.embed_tokens", None, "model.embed_tokens"),
    ("block2.proj", None, "block2.proj"),
])
def test_a_module_name_tells_layer_and_type(name, layer, kind):
    assert weights.place(name) == (layer, kind)


def test_modules_are_sorted_by_the_number_of_their_layer_and_attention_before_mlp(measured):
    modules = measured.modules
    assert list(modules["module"]) == [
        "model.layers.2.self_attn.q_proj", "model.layers.2.mlp.down_proj", "model.layers.10.self_attn.q_proj",
        "model.layers.10.mlp.down_proj", "lm_head"]
    assert list(modules["group"]) == ["2", "2", "10", "10", "lm_head"]
    assert list(modules["type"]) == ["q_proj", "down_proj"] * 2 + ["lm_head"]
    assert [measured.about["modules"][at] for at in modules.index] == list(modules["module"])


def test_types_that_end_alike_keep_their_whole_names():
    assert weights._shortest(["attn.c_proj", "mlp.c_proj", "mlp.c_fc"]) == ["attn.c_proj", "mlp.c_proj", "c_fc"]


# ---- where -----------------------------------------------------------------------------------------------------

def test_relative_change_is_the_norm_over_that_of_the_base(measured):
    frame = weights.where(measured)
    for row in frame.itertuples():
        norm = np.linalg.norm(dense(ADAPTERS[row.model])[row.module])
        assert row.norm == pytest.approx(norm, rel=1e-6)
        assert row.relative == pytest.approx(norm / 10, rel=1e-6)
    assert weights.measure(frame) == "relative"


def test_with_one_base_norm_unknown_the_plain_norm_is_compared(measured):
    measured.arrays["base_norm"][1] = np.nan
    frame = weights.where(measured)
    assert weights.measure(frame) == "norm"
    assert frame["relative"].isna().sum() == 3  # one matrix of three models


def test_the_filter_keeps_the_numbers_with_their_modules(measured):
    frame, whole = weights.where(measured, ["q_proj"]), weights.where(measured)
    assert set(frame["type"]) == {"q_proj"}
    pd.testing.assert_frame_equal(frame, whole[whole["type"] == "q_proj"].reset_index(drop=True))


def test_a_difference_is_the_first_minus_the_second(measured):
    frame = weights.where(measured)
    found = weights.difference(frame, "model_1", "merged").set_index("module")["difference"]
    own = frame.set_index(["model", "module"])["relative"]
    assert found["lm_head"] == pytest.approx(own["model_1", "lm_head"] - own["merged", "lm_head"])


def test_a_profile_is_the_mean_over_the_matrices_of_a_layer_or_type(measured):
    frame = weights.where(measured)
    own = frame[(frame["model"] == "model_2")]
    layers = weights.profile(frame, "group").set_index(["model", "group"])
    assert layers.loc[("model_2", "10"), "mean"] == pytest.approx(own[own["layer"] == 10]["relative"].mean())
    assert layers.loc[("model_2", "10"), "modules"] == 2
    kinds = weights.profile(frame, "type")
    assert list(kinds[kinds["model"] == "merged"]["group"]) == ["q_proj", "down_proj", "lm_head"]


# ---- angles ----------------------------------------------------------------------------------------------------

def naive_angle(x, y):
    return np.degrees(np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y)))


def vector(adapter, modules):
    return np.concatenate([dense(adapter)[name].ravel() for name in modules])


def test_angles_between_models_are_those_of_their_changes_as_long_vectors(measured):
    frame = weight_angles.model_angles(measured).set_index(["first", "second", "group"])
    layer = [name for name in SIZES if ".2." in name]
    for group, names in (("all", list(SIZES)), ("2", layer), ("lm_head", ["lm_head"])):
        expected = naive_angle(vector(ADAPTERS["model_1"], names), vector(ADAPTERS["merged"], names))
        assert frame.loc[("model_1", "merged", group), "angle"] == pytest.approx(expected, abs=1e-4)
        assert frame.loc[("model_1", "merged", group), "modules"] == len(names)
    assert len(frame) == 3 * 4  # pairs x (all, two layers, lm_head)


def test_an_angle_with_no_change_is_missing_and_not_0():
    assert np.isnan(weights.angle(np.array(0.0), np.array(0.0), np.array(2.0)))


@pytest.mark.parametrize("level", ["delta", "factors"])
def test_the_changes_of_a_split_have_the_norms_and_angles_of_the_dense_ones(measured, level):
    def at(adapter, names):
        return vector(adapter, names) if level == "delta" else np.concatenate([
            x.double().numpy().ravel() for name in names for x in (adapter.modules[name].A, adapter.modules[name].B)])

    frame = weight_angles.changes(measured, "model_1", 7, level).set_index("group")
    for group, names in (("all", list(SIZES)), ("10", [name for name in SIZES if ".10." in name])):
        start, middle, end = (at(adapter, names) for adapter in (START, MIDDLE, ADAPTERS["model_1"]))
        u, v = middle - start, end - middle
        row = frame.loc[group]
        for key, change in (("before", u), ("after", v), ("whole", u + v)):
            assert row[key] == pytest.approx(np.linalg.norm(change), rel=1e-5)
        for key, pair in (("before_after", (u, v)), ("before_whole", (u, u + v)), ("after_whole", (v, u + v))):
            assert row[key] == pytest.approx(naive_angle(*pair), abs=1e-3)


@pytest.mark.parametrize("level", ["delta", "factors"])
def test_the_two_angles_to_the_sum_add_up_to_the_angle_between_the_parts(measured, level):
    frame = weight_angles.changes(measured, "model_1", 7, level, by="type")
    assert len(frame) == 4
    np.testing.assert_allclose(frame["before_whole"] + frame["after_whole"], frame["before_after"], atol=1e-5)


def test_a_training_can_be_split_only_where_something_changed_on_both_sides(measured):
    assert weight_angles.split_steps(measured, "model_1") == [7]
    assert weight_angles.split_steps(measured, "model_2") == []
    assert weight_angles.trained(measured) == ["model_1"]
    assert list(weight_angles.over_splits(measured, "model_1")["step"]) == [7]


def scored(*retain):
    return pd.DataFrame({"model": "model_1", "step": [0, 7, 9], "retain": retain})


def test_the_usual_split_is_the_turning_point_and_else_the_middle_and_it_says_which(measured):
    assert weight_angles.default_split(measured, scored(1.0, 0.2, 0.5), "model_1") == (
        7, "the turning point: the lowest mean retain score")
    step, why = weight_angles.default_split(measured, scored(1.0, 0.5, 0.2), "model_1")
    assert step == 7
    assert why == "the checkpoint nearest the middle, since the lowest mean retain score is at an end, step 9"
    step, why = weight_angles.default_split(measured, scored(1.0, np.nan, np.nan), "model_1")
    assert (step, why) == (7, "the checkpoint nearest the middle, since no turning point was scored")


# ---- random directions -------------------------------------------------------------------------------------------

def cosines(draw, count=3000):
    pairs = (draw() for _ in range(count))
    return np.array([(x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs])


@pytest.mark.parametrize(("rows", "columns", "rank"), [(40, 60, 4), (30, 25, 8), (50, 200, 2)])
def test_random_updates_with_a_common_input_side_spread_as_the_effective_dimension_says(rows, columns, rank):
    random = np.random.default_rng(0)

    def draw():
        A = random.standard_normal((rank, columns))
        return [random.standard_normal((rows, rank)) @ A for _ in range(2)]

    found = cosines(draw)
    assert found.mean() == pytest.approx(0, abs=4 * found.std() / len(found) ** 0.5)
    assert found.std() == pytest.approx(1 / weight_angles.random_dimension(rows, columns, rank) ** 0.5, rel=0.08)


def test_random_updates_drawn_apart_lie_nearer_to_90_degrees():
    random, (rows, columns, rank) = np.random.default_rng(0), (40, 60, 4)
    found = cosines(lambda: [random.standard_normal((rows, rank)) @ random.standard_normal((rank, columns))
                             for _ in range(2)])
    assert found.std() == pytest.approx((rows * columns) ** -0.5, rel=0.08)
    assert found.std() < 1 / weight_angles.random_dimension(rows, columns, rank) ** 0.5


def test_about_95_of_100_random_angles_of_several_matrices_together_lie_in_the_band():
    random, sizes, rank = np.random.default_rng(1), [(40, 60, 1.0), (30, 30, 4.0)], 3

    def draw():
        parts = []
        for rows, columns, scale in sizes:
            A = random.standard_normal((rank, columns))
            parts.append([scale * (random.standard_normal((rows, rank)) @ A).ravel() for _ in range(2)])
        return [np.concatenate(side) for side in zip(*parts, strict=True)]

    squares = np.array([scale**2 * rank * rows * columns for rows, columns, scale in sizes])
    dimension = weight_angles.random_dimension(*np.array(sizes)[:, :2].T, rank)
    spread = weight_angles.random_spread(squares, squares, dimension)
    angles = np.degrees(np.arccos(cosines(draw, 2000)))
    assert np.mean(np.abs(angles - 90) < spread) == pytest.approx(0.95, abs=0.02)


# ---- one matrix ------------------------------------------------------------------------------------------------

def test_stable_rank_and_energy_are_those_of_the_singular_values(measured):
    values = np.linalg.svd(dense(ADAPTERS["model_2"])["lm_head"], compute_uv=False)[:RANK]
    row = weights.matrices(measured).set_index(["model", "module"]).loc[("model_2", "lm_head")]
    assert row["stable_rank"] == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-5)
    share = values[0] ** 2 / (values**2).sum()
    assert row["directions"] == (1 if share >= 0.9 else 2)
    frame = weights.spectrum(measured, "lm_head")
    own = frame[frame["model"] == "model_2"]
    np.testing.assert_allclose(own["value"], values, rtol=1e-5)
    np.testing.assert_allclose(own["energy"], [share, 1], rtol=1e-5)
    assert weights.energy_of_first(frame, 1)["model_2"] == pytest.approx(share, rel=1e-5)
    assert weights.energy_of_first(frame, 9)["model_2"] == pytest.approx(1)


def test_a_matrix_that_did_not_change_has_no_stable_rank_and_no_spectrum(measured):
    measured.arrays["norm"][0, 0] = 0
    measured.arrays["singular_values"][0, 0] = 0
    name = measured.about["modules"][0]
    row = weights.matrices(measured).set_index(["model", "module"]).loc[("model_1", name)]
    assert np.isnan(row["stable_rank"])
    assert np.isnan(row["directions"])
    assert set(weights.spectrum(measured, name)["model"]) == {"model_2", "merged"}


def test_the_detail_of_a_matrix_has_its_angles_to_the_other_models(measured):
    found = weights.detail(measured, "lm_head").set_index("model")
    one, two = (dense(ADAPTERS[model])["lm_head"].ravel() for model in ("model_1", "model_2"))
    assert found.loc["model_1", "angle_model_2"] == pytest.approx(naive_angle(one, two), abs=1e-4)
    assert found.loc["model_1", "angle_model_1"] == 0
    assert found.loc["model_1", "largest"] == pytest.approx(np.abs(one).max(), rel=1e-5)


def test_shares_of_a_histogram_add_up_to_1(measured):
    frame = weights.histogram(measured, "lm_head")
    assert frame.groupby("model")["share"].sum().tolist() == pytest.approx([1, 1, 1])
    assert frame["count"].sum() == 3 * 90 * 40


def test_without_entries_there_is_neither_a_histogram_nor_a_map(measured):
    measured.about["entries"] = False
    assert weights.histogram(measured, "lm_head") is None
    assert weights.blocks(measured, "lm_head") is None


def test_the_largest_change_is_that_of_the_merged_model_among_the_chosen_types(measured):
    frame = weights.where(measured)
    own = frame[(frame["model"] == "merged")].set_index("module")["relative"]
    assert weights.largest_change(measured) == own.idxmax()
    assert weights.largest_change(measured, ["q_proj"]) == own[own.index.str.endswith("q_proj")].idxmax()


# ---- reading and clicking --------------------------------------------------------------------------------------

def test_a_run_that_was_not_measured_gives_nothing(recorded_run):
    assert weights.read(recorded_run) is None


@pytest.mark.parametrize("change", [
    {"schema": 2}, {"modules": ["a"]}, {"steps": {"model_1": [0]}}, {"ranks": {}}, {"key": None}, {"adapters": 5},
])
def test_statistics_that_do_not_fit_together_are_refused_with_the_command_that_makes_them(tmp_path, measured, change):
    run = Run(tmp_path / "one-run")
    run.write_arrays("weights", measured.arrays, measured.about)
    assert weights.read(run).models == list(ADAPTERS)
    run.write_arrays("weights", measured.arrays, measured.about | change)
    with pytest.raises(InputError, match="python -m unlearn_core weights one-run"):
        weights.read(run)


def test_only_an_adapter_that_is_there_and_another_is_stale(smoke_copy):
    about = smoke_copy.arrays("weights")[1]
    assert weights.stale(smoke_copy, about) == []
    (smoke_copy.adapter_dir("model_1") / "adapter_model.safetensors").unlink()
    assert weights.stale(smoke_copy, about) == []
    about["key"]["merged"] = "another"
    assert weights.stale(smoke_copy, about) == ["merged"]


@pytest.mark.parametrize(("selection", "module"), [
    ({"selection": {"points": [{"customdata": "lm_head"}]}}, "lm_head"),
    ({"selection": {"points": [{"customdata": ["lm_head"]}]}}, "lm_head"),
    ({"selection": {"points": []}}, None),
    (None, None),
])
def test_a_click_names_its_module(selection, module):
    assert weights.clicked(selection) == module


# ---- figures ---------------------------------------------------------------------------------------------------

def test_the_maps_of_all_models_have_the_same_limits_from_0_and_a_point_to_click_in_every_cell(measured):
    frame = weights.where(measured)
    figure = weights_figures.where_map(frame)
    assert figure.layout.coloraxis.cmin == 0
    assert figure.layout.coloraxis.cmax == pytest.approx(frame["relative"].max())
    points = [trace for trace in figure.data if trace.type == "scatter"]
    assert [list(trace.customdata) for trace in points] == [list(measured.modules["module"])] * 3
    assert all(trace.marker.opacity == 0 for trace in points)
    assert list(figure.layout.yaxis.categoryarray) == ["lm_head", "down_proj", "q_proj"]  # the first on top


def test_a_signed_difference_has_0_in_the_middle_of_even_limits(measured):
    frame = weights.difference(weights.where(measured), "model_1", "model_2")
    axis = weights_figures.difference_map(frame, "model_1", "model_2", "relative").layout.coloraxis
    assert (axis.cmid, axis.cmin) == (0, -axis.cmax)
    assert axis.cmax == pytest.approx(frame["difference"].abs().max())


def test_angles_are_drawn_from_0_to_180_with_90_marked_and_all_groups_apart_from_the_line(measured):
    figure = weights_figures.model_angles(weight_angles.model_angles(measured), "Layer")
    assert list(figure.layout.yaxis.range) == [0, 180]
    assert figure.layout.shapes[0].y0 == figure.layout.shapes[0].y1 == 90
    line = figure.data[0]
    assert list(line.x) == ["all", "2", "2", "10", "lm_head", "lm_head"]
    assert [np.isnan(y) for y in line.y] == [False, True, False, False, True, False]  # gaps, so that no line joins them


def test_figures_of_one_matrix_and_of_a_training_can_be_drawn(measured):
    split = {"model_1": weight_angles.changes(measured, "model_1", 7)}
    over = {"model_1": weight_angles.over_splits(measured, "model_1")}
    frame = weights.where(measured)
    for figure, panels_drawn in (
            (weights_figures.spectrum(weights.spectrum(measured, "lm_head"), 1), 2),
            (weights_figures.histogram(weights.histogram(measured, "lm_head")), 1),
            (weights_figures.matrix(weights.spectrum(measured, "lm_head"), weights.histogram(measured, "lm_head")), 2),
            (weights_figures.matrix(weights.spectrum(measured, "lm_head"), None), 1),
            (weights_figures.block_maps(weights.blocks(measured, "lm_head"), 90, 40), 3),
            (weights_figures.changes(split, "Layer"), 2), (weights_figures.over_splits(over, {"model_1": 7}), 1),
            (weights_figures.profile(weights.profile(frame, "group"), weights.profile(frame, "type"), "relative"), 2)):
        axes = {trace.xaxis for trace in figure.data}
        assert len(axes) == panels_drawn


def test_a_figure_names_the_columns_that_it_lacks():
    with pytest.raises(ValueError, match="needs the columns"):
        weights_figures.spectrum(pd.DataFrame({"model": []}))


def test_panels_share_the_figure_without_overlap_and_a_legend_entry_stands_once():
    grid = panels.Panels(["a", "b"], rows=2, across=0.1, down=0.2, heights=(3, 1), shared_y=True)
    for column in (1, 2):
        grid.add({"type": "scatter", "x": [1], "y": [2], "name": "line", "legendgroup": "line"}, 2, column)
    layout = grid.figure(300).layout
    assert layout.xaxis.domain == pytest.approx((0, 0.45))  # (1 - 0.1) / 2
    assert layout.xaxis2.domain == pytest.approx((0.55, 1))
    assert layout.yaxis.domain == pytest.approx((0.4, 1))  # 3 / 4 of 1 - 0.2
    assert layout.yaxis3.domain == pytest.approx((0, 0.2))
    assert layout.yaxis2.matches == "y"
    assert layout.yaxis4.matches == "y3"
    assert [trace.showlegend for trace in grid.figure(300).data] == [True, False]
