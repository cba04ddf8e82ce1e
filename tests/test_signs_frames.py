"""Tables and figures of the sign statistics: shares that can be added up by hand, and TIES on the excerpt."""

import numpy as np
import pytest
import torch

from analysis import signs as frames
from analysis import signs_figures
from tests.test_signs import adapter
from unlearn_core.errors import InputError
from unlearn_core.merging.merge import disjoint_merge, elect_sign, trim
from unlearn_core.merging.task_vectors import delta
from unlearn_core.weight_changes import signs as engine

MODULES = (*((f"model.layers.{layer}.{name}", 24, 24) for layer in (0, 1, 10)
             for name in ("mlp.up_proj", "self_attn.q_proj")), ("lm_head", 6, 24))
DENSITIES = (0.25, 0.5, 0.8, 1.0)


@pytest.fixture(scope="module")
def parents():
    return adapter(3, modules=MODULES), adapter(4, modules=MODULES)


@pytest.fixture(scope="module")
def found(parents):
    arrays, about = engine.statistics(*parents, DENSITIES)
    return frames.Signs(arrays, about | {"key": {}})


# ---- tables

@pytest.mark.parametrize("counting", frames.COUNTINGS)
def test_the_six_shares_of_a_matrix_add_up_to_one(found, counting):
    for density in DENSITIES:
        table = frames.matrices(found, "dW", density, counting)
        np.testing.assert_allclose(table[list(frames.STATES)].sum(axis=1), 1)


def test_shares_by_hand(found):
    arrays = found.arrays | {"dW": np.zeros((7, 4, 6, 6))}
    arrays["dW"][0, 1, :, 0] = [10, 20, 30, 24, 12, 4]  # counts
    arrays["dW"][0, 1, :, 4] = [1, 2, 3, 6, 3, 0.5]  # |t1|
    arrays["dW"][0, 1, :, 5] = [1, 2, 3, 6, 1, 1.5]  # |t2|
    by_hand = frames.Signs(arrays, found.about)
    row = frames.matrices(by_hand, "dW", 0.5, "count").set_index("module").loc[found.about["modules"][0]]
    assert (row["conflict"], row["won_by_1"], row["agree"]) == (16 / 40, 12 / 16, 24 / 100)
    row = frames.matrices(by_hand, "dW", 0.5, "magnitude").set_index("module").loc[found.about["modules"][0]]
    assert (row["conflict"], row["won_by_1"], row["trimmed"]) == (6 / 18, 4 / 6, 2 / 30)


def test_where_nothing_is_kept_by_both_the_rate_is_missing_and_not_zero(found):
    empty = frames.Signs(found.arrays | {"dW": np.zeros((7, 4, 6, 6))}, found.about)
    table = frames.matrices(empty, "dW", 0.5, "count")
    assert table["conflict"].isna().all()
    assert frames.most_conflicting(table) == table["module"].iloc[0]
    over = frames.over_density(empty, "dW", "count")
    assert "No entry is kept by both" in frames.summary(over[over["density"] == 0.5], "count")


def test_layers_are_in_order_and_pooled_over_their_entries(found):
    table = frames.pooled(found, "dW", 0.5, "count", "group")
    assert table["group"].tolist() == ["0", "1", "10", "lm_head"]
    assert table["matrices"].tolist() == [2, 2, 2, 1]
    counts = found.arrays["dW"][[name.startswith("model.layers.10.") for name in found.about["modules"]], 1, :, 0]
    total = counts.sum(axis=0)
    assert table["conflict"][2] == pytest.approx((total[4] + total[5]) / total[3:].sum())
    assert frames.pooled(found, "dW", 0.5, "count", "type")["group"].tolist() == ["q_proj", "up_proj", "lm_head"]


def test_over_density_begins_with_all_matrices_and_ends_at_the_plain_rate_of_opposite_signs(found, parents):
    table = frames.over_density(found, "dW", "count")
    assert table["group"].unique().tolist() == [frames.OVERALL, "q_proj", "up_proj", "lm_head"]
    opposite = [delta(parents[0].modules[name], parents[0].scaling) * delta(parents[1].modules[name],
                parents[1].scaling) < 0 for name, _, _ in MODULES]
    expected = torch.cat([own.flatten() for own in opposite]).float().mean().item()
    last = table[(table["group"] == frames.OVERALL) & (table["density"] == 1.0)].iloc[0]
    assert last["conflict"] == pytest.approx(expected)


def test_a_matrix_over_density_is_its_row_of_the_table_of_matrices(found):
    name = "model.layers.1.mlp.up_proj"
    own = frames.of_matrix(found, "A", name, "magnitude").set_index("density").loc[0.8]
    row = frames.matrices(found, "A", 0.8, "magnitude").set_index("module").loc[name]
    assert own["conflict"] == row["conflict"]
    assert own["only_2"] == row["only_2"]


def test_the_summary_compares_with_random_directions(found):
    over = frames.over_density(found, "dW", "count")
    text = frames.summary(over[over["density"] == 0.8], "count")
    assert "two random directions" in text
    assert "Model 1 wins" in text


# ---- step by step

@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("density", DENSITIES)
def test_the_steps_on_the_excerpt_are_those_of_the_real_merge_of_the_whole_matrix(found, parents, density, weights):
    for name, rows, _ in MODULES:
        whole = [delta(parent.modules[name], parent.scaling) for parent in parents]
        trimmed = [trim(t, density) for t in whole]
        signs = elect_sign(trimmed)
        merged = disjoint_merge(trimmed, signs, weights)
        row, column = found.arrays["excerpt_at"][found.index(name)]
        steps = frames.steps(found, name, density, weights)
        window = slice(row, row + 8), slice(column, column + 8)
        assert steps.states.shape == (min(rows, 8), 8)
        for mine, theirs in zip((*steps.trimmed, steps.merged), (*trimmed, merged), strict=True):
            np.testing.assert_allclose(mine, theirs[window].numpy(), rtol=1e-6)
        kept = (trimmed[0] != 0) | (trimmed[1] != 0)
        assert steps.elected.tolist() == torch.where(kept, signs, 0)[window].tolist()
        limits = [engine.thresholds(t, [density]).item() for t in whole]
        assert steps.states.tolist() == engine.states(*whole, *limits)[window].tolist()


def test_numbers_are_told_in_a_power_of_ten(found):
    steps = frames.steps(found, MODULES[0][0], 0.5)
    largest = max(np.abs(own).max() for own in steps.entries)
    assert 10 <= largest / frames.unit(steps) < 100
    table = frames.as_table(steps)
    assert len(table) == 64
    assert table["merged"].tolist() == steps.merged.ravel().tolist()


# ---- the file

def test_what_is_not_of_this_version_is_refused_by_name(smoke_copy):
    arrays, about = smoke_copy.arrays("signs")
    assert frames.read(smoke_copy).about == about
    damage = ({"schema": 2}, {"densities": about["densities"][:3]}, {"spaces": ["C"]}, {"models": 5}, {"modules": []},
              {"excerpt_density": 0.123})
    for change in damage:
        smoke_copy.write_arrays("signs", arrays, about | change)
        with pytest.raises(InputError, match="measure again"):
            frames.read(smoke_copy)
    smoke_copy.write_arrays("signs", {"A": arrays["A"]}, about)
    with pytest.raises(InputError, match="measure again"):
        frames.read(smoke_copy)


def test_only_a_change_of_the_two_parents_makes_them_stale(smoke_copy):
    found = frames.read(smoke_copy)
    (smoke_copy.adapter_dir("merged") / "adapter_model.safetensors").write_bytes(b"other")
    assert frames.stale(smoke_copy, found.about) == []
    (smoke_copy.adapter_dir("model_2") / "adapter_model.safetensors").write_bytes(b"other")
    assert frames.stale(smoke_copy, found.about) == ["model_2"]


# ---- figures

def test_bars_show_every_state_once_in_the_legend_and_add_up(found):
    layers, types = (frames.pooled(found, "dW", 0.8, "count", by) for by in ("group", "type"))
    figure = signs_figures.state_bars(layers, types)
    assert [trace.name for trace in figure.data if trace.showlegend] == list(signs_figures.TIES_STATES.values())
    heights = np.sum([trace.y for trace in figure.data[:6]], axis=0)
    np.testing.assert_allclose(heights, 1)


def test_maps_have_a_clickable_square_per_matrix_and_fixed_scales(found):
    table = frames.matrices(found, "dW", 0.8, "count")
    figure = signs_figures.conflict_map(table, chosen="lm_head")
    assert figure.data[1].customdata.tolist() == table["module"].tolist()
    assert figure.data[2].y.tolist() == ["lm_head"]
    assert figure.layout.coloraxis.cmin == 0
    assert figure.layout.coloraxis.cmax >= 0.5
    winners = signs_figures.winner_map(table).layout.coloraxis
    assert (winners.cmin, winners.cmid, winners.cmax) == (0, 0.5, 1)


def test_curves_mark_the_density_and_the_level_of_random_directions(found):
    figure = signs_figures.over_density(frames.over_density(found, "dW", "count"), 0.8)
    assert [trace.name for trace in figure.data] == [frames.OVERALL, "q_proj", "up_proj", "lm_head"]
    assert {shape.y0 for shape in figure.layout.shapes} >= {0.5}
    assert {shape.x0 for shape in figure.layout.shapes} >= {0.8}
    assert len(signs_figures.matrix_states(frames.of_matrix(found, "dW", "lm_head", "count"), 0.8).data) == 6


def test_all_panels_of_the_steps_share_one_symmetric_scale(found):
    steps = frames.steps(found, MODULES[0][0], 0.5)
    figure = signs_figures.ties_steps(steps)
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    drawn = figure.data[0].z
    np.testing.assert_array_equal(drawn[:8, :8], steps.entries[0])
    np.testing.assert_array_equal(drawn[9:, 18:], np.where(steps.merged == 0, np.nan, steps.merged))
    assert np.isnan(drawn[:8, 9:17]).sum() == (steps.trimmed[0] == 0).sum()


def test_the_map_of_states_names_all_of_them(found):
    figure = signs_figures.state_map(frames.steps(found, MODULES[0][0], 0.5))
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-0.5, 5.5)
    assert len(figure.data) == 1 + 6


def test_a_table_without_its_columns_is_refused(found):
    table = frames.matrices(found, "dW", 0.8, "count").drop(columns="conflict")
    with pytest.raises(ValueError, match="conflict"):
        signs_figures.conflict_map(table)
