"""Sign statistics against a loop over entries, against the real TIES merge, and on ties, zeros and odd shapes."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from unlearn_core.errors import InputError
from unlearn_core.merging.merge import disjoint_merge, elect_sign, merge, trim
from unlearn_core.merging.task_vectors import (
    Adapter,
    Factors,
    cosine,
    delta,
    load_adapter,
    norm,
    save_adapter,
    scaled,
)
from unlearn_core.settings import Merge
from unlearn_core.vocabulary import TIES_STATES, UNLEARNED
from unlearn_core.weight_changes import signs, weights

DENSITIES = (0.1, 0.5, 0.8, 1.0)
WEIGHTS = [(1.0, 1.0), (1.0, 0.3), (0.0, 1.0), (1.5, -0.5)]
NAMES = list(TIES_STATES)


def pair(rows=30, columns=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, columns, generator=generator) for _ in range(2)]


def adapter(seed, rank=3, alpha=6.0, modules=(("down", 9, 20), ("up", 20, 9))):
    generator = torch.Generator().manual_seed(seed)
    return Adapter({name: Factors(A=torch.randn(rank, columns, generator=generator),
                                  B=torch.randn(rows, rank, generator=generator)) for name, rows, columns in modules},
                   {"peft_type": "LORA", "r": rank, "lora_alpha": alpha})


def by_loop(t1, t2, densities):
    """Entry by entry, on what `merge.trim` keeps."""
    found = np.zeros((len(densities), 6, 6))
    for number, density in enumerate(densities):
        kept1, kept2 = trim(t1, density).flatten().tolist(), trim(t2, density).flatten().tolist()
        for x, y, k1, k2 in zip(t1.flatten().tolist(), t2.flatten().tolist(), kept1, kept2, strict=True):
            if not k1 or not k2:
                state = (1 if k1 else 0) + (2 if k2 else 0)
            elif (x > 0) == (y > 0):
                state = 3
            else:
                plus = x + y >= 0
                state = 4 if (x > 0) == plus else 5
            found[number, state] += (1, x * x, y * y, x * y, abs(x), abs(y))
    return found


# ---- two matrices

def test_by_hand():
    t1 = torch.tensor([[3.0, -2.0, 0.5, 1.0], [4.0, -1.5, 2.5, 0.0]])
    t2 = torch.tensor([[1.0, -5.0, 2.0, -0.5], [-3.0, 4.0, 0.1, 0.0]])
    found = dict(zip(NAMES, signs.classes(t1, t2, [0.5])[0], strict=True))
    # kept of 1: 3, -2, 4, 2.5; of 2: -5, 2, -3, 4
    assert found["trimmed"].tolist() == [2, 1, 0.25, -0.5, 1, 0.5]  # (1, -0.5) and (0, 0)
    assert found["only_1"].tolist()[0] == 2  # (3, 1) and (2.5, 0.1)
    assert found["only_1"][4] == 3 + 2.5
    assert found["only_2"].tolist() == [2, 0.25 + 2.25, 4 + 16, 1 - 6, 0.5 + 1.5, 2 + 4]
    assert found["agree"].tolist() == [1, 4, 25, 10, 2, 5]
    assert found["won_1"].tolist() == [1, 16, 9, -12, 4, 3]  # 4 against -3
    assert found["won_2"].tolist() == [0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("shape", [(30, 20), (1, 7), (5, 1)])
def test_one_pass_equals_a_loop_over_the_entries_at_every_density(shape):
    t1, t2 = pair(*shape)
    np.testing.assert_allclose(signs.classes(t1, t2, DENSITIES), by_loop(t1, t2, DENSITIES), rtol=1e-12, atol=1e-12)


def test_chunks_add_up(monkeypatch):
    t1, t2 = pair()
    whole = signs.classes(t1, t2, signs.GRID)
    monkeypatch.setattr(signs, "CHUNK", 37)
    np.testing.assert_allclose(signs.classes(t1, t2, signs.GRID), whole, rtol=1e-12)


def test_the_states_are_exhaustive_and_the_sums_those_of_the_matrices():
    t1, t2 = pair()
    total = signs.classes(t1, t2, signs.GRID).sum(axis=1)
    expected = [600, (t1 ** 2).sum(), (t2 ** 2).sum(), (t1 * t2).sum(), t1.abs().sum(), t2.abs().sum()]
    np.testing.assert_allclose(total, np.tile(expected, (20, 1)), rtol=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("number", range(len(DENSITIES)))
def test_norm_and_inner_products_of_a_ties_merge_follow_from_the_sums(number, weights):
    t1, t2 = pair()
    trimmed = [trim(t, DENSITIES[number]) for t in (t1, t2)]
    merged = disjoint_merge(trimmed, elect_sign(trimmed), weights).double()
    (w1, w2), sums = weights, signs.classes(t1, t2, DENSITIES)[number]
    _, one, two, agree, won1, won2 = sums
    square = (w1**2 * (one[1] + won1[1]) + w2**2 * (two[2] + won2[2])
              + (w1**2 * agree[1] + w2**2 * agree[2] + 2 * w1 * w2 * agree[3]) / 4)
    with_1 = w1 * (one[1] + won1[1]) + w2 * (two[3] + won2[3]) + (w1 * agree[1] + w2 * agree[3]) / 2
    with_2 = w1 * (one[3] + won1[3]) + w2 * (two[2] + won2[2]) + (w1 * agree[3] + w2 * agree[2]) / 2
    for given, tensor in ((square, merged), (with_1, t1.double()), (with_2, t2.double())):
        assert given == pytest.approx((merged * tensor).sum().item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("entries", [600, 100_000])
def test_thresholds_are_the_exact_order_statistics(entries):
    t = torch.randn(entries, generator=torch.Generator().manual_seed(1))
    ordered = t.abs().sort(descending=True).values
    expected = [ordered[int(density * entries) - 1] for density in signs.GRID]
    assert signs.thresholds(t, signs.GRID).tolist() == torch.stack(expected).tolist()


def test_all_entries_equal_to_the_threshold_are_kept_and_a_zero_never_is():
    t = torch.tensor([2.0, -1.0, 1.0, 1.0, 0.0, 0.0])
    assert signs.thresholds(t, [0.1, 0.2, 0.5, 1.0]).tolist() == pytest.approx([math.inf, 2.0, 1.0, 1e-45], abs=1e-45)
    kept = signs.classes(t, torch.zeros(6), [0.1, 0.2, 0.5, 1.0])[:, NAMES.index("only_1"), 0]
    assert kept.tolist() == [0, 1, 4, 4]  # at 0.5 three would be 3 of 6; the third and fourth are equal
    assert signs.classes(t, torch.zeros(6), [1.0])[0, 0, 0] == 2


def test_equal_and_opposite_entries_elect_plus():
    found = signs.classes(torch.tensor([2.0, -3.0]), torch.tensor([-2.0, 3.0]), [1.0])[0]
    assert found[NAMES.index("won_1"), :2].tolist() == [1, 4]
    assert found[NAMES.index("won_2"), :2].tolist() == [1, 9]


def test_matrices_of_zeros_and_of_equal_magnitudes_are_no_special_case():
    zero, one = torch.zeros(4, 5), torch.ones(4, 5)
    assert signs.classes(zero, zero, [0.5])[0, 0, 0] == 20
    assert signs.classes(one, -one, [0.5])[0, NAMES.index("won_1"), 0] == 20


def test_the_states_of_entries_add_up_to_the_counts():
    t1, t2 = pair()
    limits = [signs.thresholds(t, [0.6]).item() for t in (t1, t2)]
    counted = torch.bincount(signs.states(t1, t2, *limits).flatten(), minlength=6)
    assert counted.tolist() == signs.classes(t1, t2, [0.6])[0, :, 0].tolist()


# ---- excerpt

def test_an_excerpt_is_the_candidate_with_all_states_and_the_most_conflict():
    t1, t2 = torch.full((64, 64), 0.1), torch.full((64, 64), 0.1)
    t1[48:56, 16:24] = torch.arange(1.0, 65).view(8, 8)
    t2[48:56, 16:24] = -torch.arange(1.0, 65).flip(0).view(8, 8)
    t2[48, 16], t1[55, 23] = 90.0, -0.01
    candidates = np.linspace(0, 56, signs.CANDIDATES).astype(int)
    row, column = signs.excerpt(t1, t2, 20.0, 20.0)
    assert row in candidates
    assert column in candidates
    assert abs(row - 48) < 8
    assert abs(column - 16) < 8
    assert signs.excerpt(t1, t2, 20.0, 20.0) == (row, column)


def test_an_excerpt_of_a_small_matrix_is_all_of_it():
    t1, t2 = pair(5, 3)
    assert signs.excerpt(t1, t2, 0.5, 0.5) == (0, 0)
    assert signs.window(t1, (0, 0)).shape == (5, 3)


# ---- adapters

@pytest.fixture(scope="module")
def measured():
    return signs.statistics(adapter(1), adapter(2, alpha=1.5), DENSITIES, excerpt_density=0.5)


def test_each_space_has_one_row_per_module_density_state_and_sum(measured):
    arrays, about = measured
    assert about["modules"] == ["down", "up"]
    assert about["densities"] == list(DENSITIES)
    assert {name: array.shape for name, array in arrays.items()} == {
        "A": (2, 4, 6, 6), "B": (2, 4, 6, 6), "dW": (2, 4, 6, 6), "gram": (2, 4, 4, 4), "against": (2, 4, 4, 2),
        "thresholds": (2, 4, 2), "excerpt": (2, 2, 8, 8), "excerpt_at": (2, 2)}
    assert json.loads(json.dumps(about)) == about


def test_a_space_is_measured_on_its_own_matrices(measured):
    first, second = adapter(1).modules["up"], adapter(2).modules["up"]
    arrays, _ = measured
    np.testing.assert_allclose(arrays["A"][1], by_loop(first.A, second.A, DENSITIES), rtol=1e-9)
    np.testing.assert_allclose(arrays["B"][1], by_loop(first.B, second.B, DENSITIES), rtol=1e-9)
    dense = delta(first, 6 / 3), delta(second, 1.5 / 3)
    np.testing.assert_allclose(arrays["dW"][1], by_loop(*dense, DENSITIES), rtol=1e-9)
    row, column = arrays["excerpt_at"][1]
    np.testing.assert_array_equal(arrays["excerpt"][1, 0], dense[0][row:row + 8, column:column + 8])


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("number", range(len(DENSITIES)))
def test_norm_and_cosines_of_pefts_merge_of_factors_follow_from_products_of_small_matrices(measured, number, weights):
    arrays, about = measured
    parents = adapter(1), adapter(2, alpha=1.5)
    b = [math.sqrt(abs(w * s)) for w, s in zip(weights, about["scalings"], strict=True)]
    a = [math.copysign(root, w * s) for root, w, s in zip(b, weights, about["scalings"], strict=True)]
    factors = np.array([bj * ai for bj in b for ai in a])  # B'_1 A'_1, B'_1 A'_2, B'_2 A'_1, B'_2 A'_2
    length = math.sqrt(np.einsum("a,mab,b->", factors, arrays["gram"][:, number], factors))
    inner = np.einsum("a,map->p", factors, arrays["against"][:, number])
    real = merge(list(parents), Merge(density=DENSITIES[number], weights=weights))
    assert length == pytest.approx(norm(real), rel=1e-5)
    for parent, product in zip(parents, inner, strict=True):
        assert product / length / norm(parent) == pytest.approx(cosine(real, parent), rel=1e-4, abs=1e-5)


def test_unequal_ranks_leave_only_delta_w_and_say_why():
    arrays, about = signs.statistics(adapter(1), adapter(2, rank=5), [0.5])
    assert about["spaces"] == ["dW"]
    assert "ranks 3 and 5" in about["left_out"]["A"]
    assert set(arrays) == {"dW", "thresholds", "excerpt", "excerpt_at"}


def test_spaces_can_be_chosen_and_the_density_of_the_excerpt_joins_the_grid():
    arrays, about = signs.statistics(adapter(1), adapter(2), [0.5], spaces=["A", "B"], excerpt_density=0.33)
    assert set(arrays) == {"A", "B", "gram", "against"}
    assert about["densities"] == [0.33, 0.5]


def test_progress_counts_the_modules():
    seen = []
    signs.statistics(adapter(1), adapter(2), [0.5], progress=lambda *args: seen.append(args))
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_adapters_of_different_modules_and_densities_out_of_range_are_refused():
    with pytest.raises(InputError, match="modules that only one"):
        signs.statistics(adapter(1), adapter(2, modules=(("up", 20, 9),)))
    for density in (0.0, 1.2):
        with pytest.raises(InputError, match="densities"):
            signs.statistics(adapter(1), adapter(2), [density])


# ---- runs

def test_a_run_of_the_engine_has_its_sign_statistics_and_they_are_current(smoke_run):
    arrays, about = smoke_run.arrays("signs")
    assert about["key"] == {name: smoke_run.adapter_keys()[name] for name in UNLEARNED}
    assert about["densities"] == list(signs.GRID)
    assert arrays["dW"].shape == (len(about["modules"]), 20, 6, 6)
    assert weights.signs_are_current(smoke_run)


def test_statistics_of_other_adapters_or_a_damaged_file_are_not_current(smoke_copy):
    folder = smoke_copy.adapter_dir("model_1")
    save_adapter(scaled(load_adapter(folder), 2.0), folder)
    assert not weights.signs_are_current(smoke_copy)
    weights.measure_signs(smoke_copy)
    assert weights.signs_are_current(smoke_copy)
    (smoke_copy.path / "signs.safetensors").write_bytes(b"x")
    assert not weights.signs_are_current(smoke_copy)


def test_too_many_entries_leave_delta_w_out_and_say_how_to_have_it(smoke_copy, monkeypatch):
    monkeypatch.setattr(weights, "MOST_ENTRIES", 10)
    weights.measure_signs(smoke_copy)
    assert smoke_copy.arrays("signs")[1]["spaces"] == ["A", "B"]
    assert "--entries" in smoke_copy.arrays("signs")[1]["left_out"]["dW"]
    weights.measure_signs(smoke_copy, entries=True)
    assert smoke_copy.arrays("signs")[1]["spaces"] == ["A", "B", "dW"]


def test_without_one_of_the_two_adapters_nothing_is_written(smoke_copy):
    (smoke_copy.path / "signs.safetensors").unlink()
    shutil.rmtree(smoke_copy.adapter_dir("model_2"))
    weights.measure_signs(smoke_copy)
    assert smoke_copy.arrays("signs") == ({}, {})
    assert weights.signs_are_current(smoke_copy)
