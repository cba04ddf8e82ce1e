"""Merging: PEFT as the oracle on a real (tiny) model, published values, and the properties of each method."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import merge_utils
from transformers import OlmoConfig, OlmoForCausalLM

from unlearn_core.errors import InputError
from unlearn_core.merging.merge import (
    combine,
    disjoint_merge,
    drop,
    elect_sign,
    magnitude_limit,
    norm_ratio,
    ties,
    trim,
    warnings,
)
from unlearn_core.merging.merge import merge as merge_adapters
from unlearn_core.merging.task_vectors import Adapter, Factors, delta, load_adapter, save_adapter, scaled
from unlearn_core.settings import MERGE_PRESETS, Merge, merge_preset

METHODS = ("ties", "linear", "magnitude_prune", "dare_linear", "dare_ties", "negmerge", "cat")
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
T1 = torch.tensor([[1.0, -2.0, 0.5, 0.0], [3.0, -0.1, -4.0, 0.2]])
T2 = torch.tensor([[-0.5, -1.0, 2.0, 0.3], [1.0, 0.4, 3.0, -0.2]])


def tiny_model() -> OlmoForCausalLM:
    torch.manual_seed(0)
    return OlmoForCausalLM(OlmoConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0, eos_token_id=0, bos_token_id=None)).eval()


def peft_model(*settings: dict, coarse: bool = False) -> PeftModel:
    """A model with random adapters "p", "q", ...; `coarse` rounds their weights, so that magnitudes tie."""
    configs = [LoraConfig(target_modules=LINEAR, task_type="CAUSAL_LM", **one) for one in settings]
    model = get_peft_model(tiny_model(), configs[0], adapter_name="p")
    for name, config in zip("qs", configs[1:], strict=False):
        model.add_adapter(name, config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
            if coarse:
                parameter.data = (parameter.data * 2).round() / 2
    return model


def read(model: PeftModel, folder: Path) -> list[Adapter]:
    """Our reading of the adapters that PEFT saved."""
    model.save_pretrained(folder)
    return [load_adapter(folder / name) for name in sorted(model.peft_config)]


def assert_factors_equal(merged: Adapter, model: PeftModel, name: str) -> None:
    expected = get_peft_model_state_dict(model, adapter_name=name)
    assert len(expected) == 2 * len(merged.modules) == 14
    for module, factors in merged.modules.items():
        for factor in "AB":
            torch.testing.assert_close(getattr(factors, factor),
                                       expected[f"base_model.model.{module}.lora_{factor}.weight"], atol=1e-6, rtol=0)


def merge(adapters: list[Adapter], method: str = "ties", level: str = "factors", density: float = 0.8,
          weights: tuple[float, ...] | None = None, device: str = "cpu", **settings) -> Adapter:
    """`merge.merge` with the settings that these tests vary."""
    weights = (1.0,) * len(adapters) if weights is None else tuple(weights)
    return merge_adapters(adapters, Merge(method, level, density, weights, **settings), device)


def random_adapter(seed: int, rank: int = 3, alpha: float = 6.0) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    modules = {name: Factors(A=torch.randn(rank, columns, generator=generator),
                             B=torch.randn(rows, rank, generator=generator))
               for name, rows, columns in (("up", 7, 5), ("down", 5, 7))}
    return Adapter(modules, {"peft_type": "LORA", "r": rank, "lora_alpha": alpha})


def deltas(adapter: Adapter) -> list[torch.Tensor]:
    return [delta(factors, adapter.scaling) for factors in adapter.modules.values()]


def assert_same_update(first: Adapter, second: Adapter, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(deltas(first), deltas(second), atol=tolerance, rtol=tolerance)


def largest_difference(first: Adapter, second: Adapter) -> float:
    return max((a - b).abs().max().item() for a, b in zip(deltas(first), deltas(second), strict=True))


# ---- TIES on tensors

@pytest.mark.parametrize(("density", "weights", "expected"), [  # computed with PEFT 0.21.2
    (1.0, (1.0, 1.0), [[1.0, -1.5, 1.25, 0.3], [2.0, 0.4, -4.0, 0.2]]),
    (0.5, (1.0, 1.0), [[1.0, -1.5, 2.0, 0.0], [2.0, 0.0, -4.0, 0.0]]),
    (0.5, (1.0, 0.5), [[1.0, -1.25, 1.0, 0.0], [1.75, 0.0, -4.0, 0.0]]),
])
def test_ties_gives_the_values_of_peft_on_two_small_matrices(density, weights, expected):
    torch.testing.assert_close(ties([T1, T2], weights, density), torch.tensor(expected))


def test_the_three_steps_by_hand():
    trimmed = torch.stack([trim(T1, 0.5), trim(T2, 0.5)])
    assert trimmed[0].tolist() == [[1.0, -2.0, 0.0, 0.0], [3.0, 0.0, -4.0, 0.0]]  # floor(0.5 * 8) = 4 stay
    assert trimmed[1].tolist() == [[0.0, -1.0, 2.0, 0.0], [1.0, 0.0, 3.0, 0.0]]
    signs = elect_sign(trimmed)
    assert signs.tolist() == [[1, -1, 1, 1], [1, 1, -1, 1]]  # -4 + 3 < 0, and 0 counts as +
    merged = disjoint_merge(trimmed, signs, (1.0, 1.0))
    assert merged.tolist() == [[1.0, (-2.0 - 1.0) / 2, 2.0, 0.0], [(3.0 + 1.0) / 2, 0.0, -4.0, 0.0]]


def test_equal_and_opposite_entries_elect_plus():
    assert ties([torch.tensor([2.0]), torch.tensor([-2.0])], (1.0, 1.0), 1.0).tolist() == [2.0]


@pytest.mark.parametrize("density", [0.01, 0.3, 0.29, 0.8, 0.999])
def test_trim_keeps_exactly_the_floor_of_density_times_n_also_among_equal_magnitudes(density):
    x = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
    kept = trim(x, density)
    assert (kept != 0).sum() == int(density * 100)
    assert x[kept != 0].abs().min() >= x[kept == 0].abs().max()
    assert (trim(torch.ones(10, 10), density) != 0).sum() == int(density * 100)


# ---- PEFT as the oracle

SAME = ({"r": 4, "lora_alpha": 4},) * 2
UNLIKE = ({"r": 4, "lora_alpha": 8}, {"r": 4, "lora_alpha": 2})
THREE = ({"r": 4, "lora_alpha": 8}, {"r": 4, "lora_alpha": 2}, {"r": 4, "lora_alpha": 4})
ROOTED = ({"r": 4, "lora_alpha": 8, "use_rslora": True},) * 2


@pytest.mark.parametrize("method", ["ties", "linear", "magnitude_prune"])
@pytest.mark.parametrize(("settings", "weights", "density"), [
    (SAME, (1.0, 1.0), 0.8), (SAME, (1.0, 1.0), 0.37), (SAME, (1.0, 1.0), 1.0), (UNLIKE, (1.0, 1.0), 0.8),
    (UNLIKE, (0.3, 1.7), 0.6), (UNLIKE, (1.0, -0.5), 0.6), (UNLIKE, (-1.0, -2.0), 0.6), (UNLIKE, (1.0, 0.0), 0.8),
    (THREE, (1.0, 0.5, -0.25), 0.5), (ROOTED, (1.0, 0.5), 0.5),
])
def test_factor_level_merges_equal_add_weighted_adapter(tmp_path, method, settings, weights, density):
    model = peft_model(*settings)
    merged = merge(read(model, tmp_path), method, "factors", density, weights)
    model.add_weighted_adapter(list("pqs"[:len(settings)]), list(weights), "merged", combination_type=method,
                               density=density)
    assert_factors_equal(merged, model, "merged")
    assert merged.scaling == 1.0


@pytest.mark.parametrize("settings", [UNLIKE, ({"r": 4, "lora_alpha": 8}, {"r": 2, "lora_alpha": 2})])
def test_concatenated_adapters_equal_pefts_cat_also_of_unequal_ranks(tmp_path, settings):
    model = peft_model(*settings)
    merged = merge(read(model, tmp_path), "cat", weights=(1.0, -0.5))
    model.add_weighted_adapter(["p", "q"], [1.0, -0.5], "merged", combination_type="cat")
    assert merged.rank == sum(one["r"] for one in settings)
    for module, factors in merged.modules.items():
        expected = model.base_model.model.get_submodule(module).get_delta_weight("merged")
        torch.testing.assert_close(delta(factors), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, -1.7)])
def test_dare_equals_peft_with_the_same_random_numbers(method, weights):
    tensors = list(torch.randn(2, 30, 20, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(7)
    expected = getattr(merge_utils, method)(tensors, torch.tensor(weights), 0.6)
    generator = torch.Generator().manual_seed(7)
    torch.testing.assert_close(combine(tensors, Merge(method, density=0.6, weights=weights), generator), expected)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.8])
def test_factor_level_ties_equals_peft_also_where_many_magnitudes_tie(tmp_path, density):
    model = peft_model(*SAME, coarse=True)
    merged = merge(read(model, tmp_path), density=density)
    model.add_weighted_adapter(["p", "q"], [1.0, 1.0], "merged", combination_type="ties", density=density)
    assert_factors_equal(merged, model, "merged")


@pytest.mark.parametrize(("method", "combination_type"), [("ties", "ties_svd"), ("linear", "svd"),
                                                          ("magnitude_prune", "magnitude_prune_svd")])
@pytest.mark.parametrize("rank", [3, 8])
def test_delta_level_merges_of_a_given_rank_equal_pefts_svd_types(tmp_path, method, combination_type, rank):
    model = peft_model(*UNLIKE)
    merged = merge(read(model, tmp_path), method, "delta", 0.6, (1.0, -0.5), rank=rank)
    assert merged.rank == rank
    model.add_weighted_adapter(["p", "q"], [1.0, -0.5], "merged", combination_type=combination_type, svd_rank=rank,
                               density=0.6)
    for module, factors in merged.modules.items():
        expected = model.base_model.model.get_submodule(module).get_delta_weight("merged")
        torch.testing.assert_close(delta(factors), expected, atol=1e-4, rtol=1e-4)


def test_merged_adapters_of_each_kind_load_in_peft_with_the_logits_of_the_added_deltas(tmp_path):
    parents = read(peft_model({"r": 4, "lora_alpha": 1}, {"r": 4, "lora_alpha": 2}), tmp_path)
    tokens = torch.tensor([[1, 5, 9, 2, 30, 7]])
    for number, choice in enumerate([{"level": "factors"}, {"level": "delta"}, {"level": "delta", "rank": 5},
                                     {"method": "linear"}, {"method": "linear", "level": "delta"},
                                     {"method": "cat"}, {"method": "dare_ties"},
                                     {"method": "negmerge", "level": "delta"},
                                     {"trim_scope": "global", "level": "delta", "elect": "after"}]):
        merged = merge(parents, **choice)
        save_adapter(merged, tmp_path / f"merged{number}")
        model = tiny_model()
        with torch.no_grad():
            for name, factors in merged.modules.items():
                model.get_submodule(name).weight += delta(factors, merged.scaling)
            expected = model(tokens).logits
            loaded = PeftModel.from_pretrained(tiny_model(), tmp_path / f"merged{number}")
            torch.testing.assert_close(loaded(tokens).logits, expected, atol=1e-4, rtol=1e-4)


# ---- mergekit and the authors of TIES as the oracles

@pytest.mark.parametrize(("choice", "expected"), [  # computed with mergekit (snapshot of June 2026)
    (merge_preset("mergekit", "ties"), [[1.0, -1.5, 2.0, 0.0], [2.0, 0.0, -4.0, 0.0]]),
    (replace(merge_preset("mergekit", "ties"), weights=(1.0, 0.5)),
     [[1.0, -1.666667, 2.0, 0.0], [2.333333, 0.0, -4.0, 0.0]]),
    (Merge("magnitude_prune", weights=(1.0, 0.0)), [[1.0, -2.0, 0.0, 0.0], [3.0, 0.0, -4.0, 0.0]]),
    (Merge("magnitude_prune", weights=(0.0, 1.0)), [[0.0, -1.0, 2.0, 0.0], [1.0, 0.0, 3.0, 0.0]]),
    (Merge("magnitude_prune", weights=(1.0, 0.0), rescale="l1"), [[1.08, -2.16, 0.0, 0.0], [3.24, 0.0, -4.32, 0.0]]),
    (Merge("magnitude_prune", weights=(0.0, 1.0), rescale="l1"), [[0.0, -1.2, 2.4, 0.0], [1.2, 0.0, 3.6, 0.0]]),
    (merge_preset("peft", "magnitude_prune"), [[1.0, -3.0, 2.0, 0.0], [4.0, 0.0, -1.0, 0.0]]),  # and with PEFT 0.21.2
])
def test_methods_give_the_published_values_on_two_small_matrices(choice, expected):
    torch.testing.assert_close(combine([T1, T2], replace(choice, density=0.5)), torch.tensor(expected))


def test_task_arithmetic_with_a_negative_weight_is_negation():
    expected = [[-1.25, 1.5, 0.5, 0.15], [-2.5, 0.3, 5.5, -0.3]]  # computed with PEFT 0.21.2
    torch.testing.assert_close(combine([T1, T2], Merge("linear", weights=(-1.0, 0.5))), torch.tensor(expected))


def test_the_preset_of_the_ties_paper_trims_the_whole_vector_and_means_what_agrees():
    """Written from the paper's algorithm: all parameters as one flat vector per task."""
    a, b = random_adapter(1), random_adapter(2)
    flat = torch.stack([torch.cat([d.flatten() for d in deltas(adapter)]) for adapter in (a, b)])
    kept = int(0.4 * flat.shape[1])
    limits = flat.abs().sort(dim=1, descending=True).values[:, kept - 1:kept]
    flat[flat.abs() < limits] = 0
    signs = flat.sum(dim=0).sign()
    agree = flat.sign() == signs
    expected = (flat * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
    merged = merge_adapters([a, b], replace(merge_preset("ties-paper"), density=0.4))
    torch.testing.assert_close(torch.cat([d.flatten() for d in deltas(merged)]), expected)
    each = merge([a, b], "ties", "delta", 0.4)
    assert largest_difference(merged, each) > 0.1  # trimming each matrix by itself keeps other entries


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 0.99])
def test_the_limit_of_global_trimming_is_the_exact_order_statistic_over_all_tensors(density):
    parts = [torch.randn(40, 7), torch.randn(3) * 1e-30, torch.zeros(9), torch.randn(11, 11) * 1e20]
    everything = torch.cat([part.abs().flatten() for part in parts]).sort(descending=True).values
    kept = int(density * len(everything))
    expected = everything[kept - 1].item() if kept else float("inf")
    assert magnitude_limit(lambda: iter(parts), density) == expected


def test_every_preset_takes_every_method():
    for name in MERGE_PRESETS:
        for method in METHODS:
            assert merge_adapters([random_adapter(1), random_adapter(2)], merge_preset(name, method)).modules


# ---- properties of all methods

@pytest.mark.parametrize("level", ["factors", "delta"])
@pytest.mark.parametrize("method", ["magnitude_prune", "negmerge", "cat"])
def test_the_order_of_the_adapters_does_not_matter_to_the_other_methods(method, level):
    pair, swapped = [random_adapter(1), random_adapter(2)], [random_adapter(2), random_adapter(1)]
    assert_same_update(merge(pair, method, level, 0.6, (1.0, 0.5)), merge(swapped, method, level, 0.6, (0.5, 1.0)))


@pytest.mark.parametrize("method", ["linear", "magnitude_prune", "dare_linear", "cat"])
def test_weights_1_and_0_leave_the_first_adapter_pruned_or_not(method):
    a, b = random_adapter(1), random_adapter(2)
    alone = merge([a, b], method, "delta", 0.6, (1.0, 0.0))
    for got, whole in zip(deltas(alone), deltas(a), strict=True):
        kept = got != 0
        if method == "magnitude_prune":
            assert kept.sum() == int(0.6 * kept.numel())
        scale = 1 / 0.6 if method == "dare_linear" else 1.0
        torch.testing.assert_close(got, whole.where(kept, 0) * scale)


def test_negmerge_keeps_the_mean_of_entries_on_which_all_signs_agree():
    merged = combine([T1, T2], Merge("negmerge"))
    assert merged.tolist() == [[0.0, -1.5, 1.25, 0.0], [2.0, 0.0, 0.0, 0.0]]  # only these four agree and are not 0
    assert combine([T1, T2], Merge("negmerge", weights=(-1.0, -1.0)))[0, 1] == 1.5  # negation: taken away


def test_electing_after_weighting_lets_the_larger_weight_win():
    tensors, weights = [torch.tensor([1.0]), torch.tensor([-0.9])], (0.5, 1.0)
    assert combine(tensors, Merge(weights=weights, density=1.0)).item() == 1.0 * 0.5
    assert combine(tensors, Merge(weights=weights, density=1.0, elect="after")).item() == pytest.approx(-0.9)
    assert combine(tensors, Merge(weights=(-1.0, 1.0), density=1.0, elect="after")).item() == pytest.approx(-1.9 / 2)


def test_the_divisor_is_a_count_a_sum_of_weights_or_nothing():
    tensors, weights = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])], (1.0, 3.0)
    for divisor, expected in {"count": [(1 + 9) / 2, 2.0], "usual": [(1 + 9) / 2, 2.0],
                              "weights": [(1 + 9) / 4, 2.0], "none": [1 + 9, 2.0]}.items():
        got = combine(tensors, Merge(weights=weights, density=1.0, divisor=divisor))
        assert got.tolist() == pytest.approx(expected)
    for divisor, expected in {"count": 10 / 2, "usual": 10.0, "weights": 10 / 4, "none": 10.0}.items():
        assert combine(tensors, Merge("linear", weights=weights, divisor=divisor))[0] == pytest.approx(expected)


def test_the_mean_of_updates_is_the_same_dense_or_as_concatenated_factors():
    a, b = random_adapter(1), random_adapter(2)
    mean = merge([a, b], "linear", "delta", divisor="count")
    assert mean.rank == 6
    for got, one, two in zip(deltas(mean), deltas(a), deltas(b), strict=True):
        torch.testing.assert_close(got, (one + two) / 2, atol=1e-5, rtol=1e-5)


def test_dare_keeps_the_expectation_and_repeats_with_its_seed_whatever_the_order_of_the_modules():
    x = torch.ones(200, 200)
    kept = drop(x, 0.3, torch.Generator().manual_seed(0))
    share = 200 * 200 * 0.3
    assert abs(kept.sum() - share) < 5 * (share * 0.7) ** 0.5  # five standard errors of a binomial count
    a, b = random_adapter(1), random_adapter(2)
    turned = [Adapter(dict(reversed(one.modules.items())), one.config) for one in (a, b)]
    first = merge([a, b], "dare_linear", "delta", 0.5, seed=3)
    again = merge(turned, "dare_linear", "delta", 0.5, seed=3)
    for name, factors in first.modules.items():
        assert torch.equal(delta(factors), delta(again.modules[name]))
    assert largest_difference(first, merge([a, b], "dare_linear", "delta", 0.5, seed=4)) > 0


@pytest.mark.parametrize("method", METHODS)
def test_alpha_and_rslora_scale_the_updates_that_are_merged(method):
    """The same updates in other clothes (alpha and B changed inversely) merge to the same on delta W."""
    a, b = random_adapter(1, alpha=6.0), random_adapter(2, alpha=6.0)

    def rescaled(adapter: Adapter, **config) -> Adapter:
        other = Adapter(adapter.modules, adapter.config | config)
        factor = adapter.scaling / other.scaling
        return Adapter({name: Factors(f.A, f.B * factor) for name, f in adapter.modules.items()}, other.config)

    merged = merge([a, b], method, "delta", 0.6)
    rooted = rescaled(b, use_rslora=True)
    assert rooted.scaling == pytest.approx(6.0 / 3**0.5)
    assert_same_update(merge([rescaled(a, lora_alpha=1.5), rooted], method, "delta", 0.6), merged, 1e-4)


def test_factors_of_unrelated_initialisations_are_merged_with_a_warning():
    generator = torch.Generator().manual_seed(0)
    a = Adapter({"up": Factors(torch.randn(4, 500, generator=generator), torch.randn(6, 4, generator=generator))},
                {"peft_type": "LORA", "r": 4, "lora_alpha": 4})
    other = Adapter({"up": Factors(torch.randn(4, 500, generator=generator), torch.randn(6, 4, generator=generator))},
                    a.config)
    alike = Adapter({"up": Factors(a.modules["up"].A + 0.5 * other.modules["up"].A, other.modules["up"].B)}, a.config)
    assert warnings([a, alike], Merge()) == []
    assert "do not come from one initialisation" in warnings([a, other], Merge())[0]
    assert warnings([a, other], Merge(level="delta")) == warnings([a, other], Merge("cat")) == []
    assert merge([a, other]).modules


# ---- properties

@pytest.mark.parametrize("level", ["factors", "delta"])
@pytest.mark.parametrize("method", ["ties", "linear"])
def test_the_order_of_the_adapters_does_not_matter(method, level):
    weighted = list(zip([random_adapter(seed) for seed in range(3)], (1.0, 0.5, 2.0), strict=True))
    merges = [merge([a for a, _ in order], method, level, 0.6, [w for _, w in order])
              for order in permutations(weighted)]
    for other in merges[1:]:
        assert_same_update(merges[0], other, 1e-4)


@pytest.mark.parametrize("level", ["factors", "delta"])
def test_weights_1_and_0_give_the_first_adapter_back_for_linear(level):
    a, b = random_adapter(1), random_adapter(2)
    assert_same_update(merge([a, b], "linear", level, weights=(1.0, 0.0)), a)


def test_weights_1_and_0_in_ties_halve_agreed_entries_and_drop_what_the_other_adapter_wins():
    merged = ties([T1, T2], (1.0, 0.0), 1.0)
    assert merged[0].tolist() == [1.0, -2.0 / 2, 0.5 / 2, 0.0]
    assert merged[1].tolist() == pytest.approx([3.0 / 2, 0.0, -4.0, 0.2])


def test_at_density_1_ties_of_entries_that_agree_in_sign_is_their_mean():
    a, b = T1.abs() + 0.1, T2.abs() + 0.1
    torch.testing.assert_close(ties([-a, -b], (1.0, 1.0), 1.0), -(a + b) / 2)


@pytest.mark.parametrize("level", ["factors", "delta"])
def test_ties_with_identical_adapters_gives_the_adapter_back_at_density_1_only(level):
    adapter = random_adapter(1)
    assert_same_update(merge([adapter, adapter], "ties", level, 1.0), adapter)
    assert largest_difference(merge([adapter, adapter], "ties", level, 0.8), adapter) > 0.1


@pytest.mark.parametrize(("method", "level", "ratio"), [("linear", "factors", 4.0), ("linear", "delta", 2.0),
                                                        ("ties", "factors", 1.0), ("ties", "delta", 1.0)])
def test_identical_adapters_come_back_this_many_times_as_large(method, level, ratio):
    adapter = random_adapter(1)
    assert norm_ratio(merge([adapter, adapter], method, level, 1.0), [adapter, adapter]) == pytest.approx(ratio)


def test_norm_ratio_divides_by_the_mean_norm_of_the_parents():
    adapter = random_adapter(1)
    assert norm_ratio(scaled(adapter, 3.0), [scaled(adapter, 1.0), scaled(adapter, -2.0)]) == pytest.approx(3 / 1.5)


@pytest.mark.parametrize("method", ["ties", "linear", "magnitude_prune", "dare_ties", "negmerge"])
def test_delta_level_merges_ignore_how_the_update_is_factored_and_factor_level_merges_do_not(method):
    a, b = random_adapter(1), random_adapter(2)
    q = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [1.0, 0.0, 1.0]])
    refactored = Adapter({name: Factors(q @ f.A, f.B @ q.inverse()) for name, f in a.modules.items()}, a.config)
    assert_same_update(refactored, a)
    assert_same_update(merge([refactored, b], method, "delta", 0.6), merge([a, b], method, "delta", 0.6), 1e-4)
    assert largest_difference(merge([refactored, b], method, "factors", 0.6),
                              merge([a, b], method, "factors", 0.6)) > 1.0


def test_delta_level_linear_is_the_exact_sum_also_of_unequal_ranks():
    a, b = random_adapter(1, rank=3, alpha=6.0), random_adapter(2, rank=2, alpha=1.0)
    merged = merge([a, b], "linear", "delta", weights=(2.0, -1.0))
    assert merged.rank == 5
    for got, one, two in zip(deltas(merged), deltas(a), deltas(b), strict=True):
        torch.testing.assert_close(got, 2.0 * one - two, atol=1e-5, rtol=1e-5)


def test_delta_level_ties_without_a_rank_is_exactly_ties_of_the_dense_updates():
    a, b = random_adapter(1, rank=3, alpha=6.0), random_adapter(2, rank=2, alpha=1.0)
    merged = merge([a, b], "ties", "delta", 0.6, (1.0, 0.5))
    assert merged.rank == 5  # min(out, in) of both modules
    for got, one, two in zip(deltas(merged), deltas(a), deltas(b), strict=True):
        assert torch.equal(got, ties([one, two], (1.0, 0.5), 0.6))


def test_a_merge_does_not_change_its_parents():
    a, b = random_adapter(1), random_adapter(2)
    for method in ("ties", "linear"):
        for level in ("factors", "delta"):
            merge([a, b], method, level)
    assert largest_difference(a, random_adapter(1)) == largest_difference(b, random_adapter(2)) == 0.0
    assert a.config == random_adapter(1).config


# ---- bad input

@pytest.mark.parametrize(("choice", "message"), [
    ({"method": "dare"}, "merge method; got dare; expected one of ties, linear, magnitude_prune, dare_linear"),
    ({"trim_scope": "layer"}, "merge trim_scope; got layer; expected one of matrix, global"),
    ({"elect": "never"}, "merge elect; got never; expected one of before, after"),
    ({"divisor": "two"}, "merge divisor; got two"),
    ({"rescale": "l2"}, "merge rescale; got l2"),
    ({"level": "weights"}, "merge level"),
    ({"density": 0.0}, "merge density"),
    ({"density": 1.5}, "merge density"),
    ({"weights": (1.0,)}, "expected 2 finite numbers"),
    ({"weights": (1.0, float("nan"))}, "merge weights"),
    ({"weights": (0.0, 0.0)}, "not all 0"),
    ({"rank": 4}, "merge rank"),
    ({"rank": -1, "level": "delta"}, "merge rank"),
])
def test_a_bad_choice_is_named(choice, message):
    with pytest.raises(InputError, match=message):
        merge([random_adapter(1), random_adapter(2)], **choice)


def test_one_adapter_unequal_ranks_and_other_modules_are_refused():
    a, b = random_adapter(1), random_adapter(2)
    with pytest.raises(InputError, match="got 1 adapters; expected at least two"):
        merge([a])
    with pytest.raises(InputError, match=r"rank 3, 2; expected equal ranks on factors; set level to delta"):
        merge([a, random_adapter(2, rank=2)])
    with pytest.raises(InputError, match="only one of them changes: down"):
        merge([a, Adapter({"up": b.modules["up"]}, b.config)])
