"""Adapters: PEFT's format in and out, exact sums of updates, geometry from the factors against dense matrices."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import OlmoConfig, OlmoForCausalLM

from unlearn_core.errors import InputError
from unlearn_core.merging.task_vectors import (
    Adapter,
    Factors,
    check_compatible,
    concatenated,
    cosine,
    delta,
    from_factors,
    inner,
    inner_by_module,
    load_adapter,
    norm,
    save_adapter,
    scaled,
)

TOKENS = torch.tensor([[1, 5, 9, 2, 30, 7]])


def tiny_model() -> OlmoForCausalLM:
    torch.manual_seed(0)
    return OlmoForCausalLM(OlmoConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0, eos_token_id=0, bos_token_id=None)).eval()


def peft_folder(folder: Path, seed: int = 0, **settings) -> Path:
    """An adapter with random A and B, saved by PEFT itself."""
    settings = {"r": 4, "lora_alpha": 8, **settings}
    model = get_peft_model(tiny_model(), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **settings))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(folder)
    return folder


def random_adapter(seed: int, rank: int = 3, alpha: float = 6.0, **config) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    modules = {name: Factors(A=torch.randn(rank, columns, generator=generator),
                             B=torch.randn(rows, rank, generator=generator))
               for name, rows, columns in (("up", 7, 5), ("down", 5, 7))}
    return Adapter(modules, {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, **config})


def dense(adapter: Adapter) -> torch.Tensor:
    """All weight changes as one long vector, in float64."""
    return torch.cat([(f.B.double() @ f.A.double() * adapter.scaling).flatten() for f in adapter.modules.values()])


@torch.no_grad()
def logits_with_added_deltas(adapter: Adapter) -> torch.Tensor:
    model = tiny_model()
    for name, factors in adapter.modules.items():
        model.get_submodule(name).weight += delta(factors, adapter.scaling)
    return model(TOKENS).logits


@torch.no_grad()
def logits_through_peft(folder: Path) -> torch.Tensor:
    return PeftModel.from_pretrained(tiny_model(), folder).eval()(TOKENS).logits


# ---- files

@pytest.mark.parametrize(("settings", "scaling"), [({"r": 4, "lora_alpha": 4}, 1.0), ({"r": 4, "lora_alpha": 8}, 2.0),
                                                   ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 8 / 2)])
def test_a_peft_adapter_loads_with_its_scaling_and_its_delta_is_what_peft_adds(tmp_path, settings, scaling):
    adapter = load_adapter(peft_folder(tmp_path / "a", **settings))
    assert adapter.scaling == scaling
    assert len(adapter.modules) == 2 * 7
    assert adapter.modules["model.layers.1.self_attn.k_proj"].B.shape == (8, 4)
    torch.testing.assert_close(logits_with_added_deltas(adapter), logits_through_peft(tmp_path / "a"),
                               atol=1e-5, rtol=1e-5)


def test_a_saved_adapter_loads_in_peft_with_the_same_logits(tmp_path):
    adapter = scaled(load_adapter(peft_folder(tmp_path / "a")), -0.5)
    save_adapter(adapter, tmp_path / "b")
    expected = logits_with_added_deltas(adapter)
    torch.testing.assert_close(logits_through_peft(tmp_path / "b"), expected, atol=1e-5, rtol=1e-5)
    assert (expected - tiny_model()(TOKENS).logits).abs().max() > 0.1


def test_an_adapter_with_padded_unequal_ranks_loads_in_peft_with_the_same_logits(tmp_path):
    adapter = load_adapter(peft_folder(tmp_path / "a", r=4, lora_alpha=4))
    first, *others = adapter.modules
    modules = {first: Factors(adapter.modules[first].A[:2], adapter.modules[first].B[:, :2]),
               **{name: adapter.modules[name] for name in others}}
    padded = from_factors(modules, adapter.config)
    assert padded.modules[first].A.shape[0] == 4
    save_adapter(padded, tmp_path / "b")
    torch.testing.assert_close(logits_through_peft(tmp_path / "b"), logits_with_added_deltas(padded),
                               atol=1e-5, rtol=1e-5)
    assert torch.equal(delta(padded.modules[first]), delta(modules[first]))


def test_save_and_load_give_the_same_numbers_and_replace_an_older_adapter(tmp_path):
    folder = tmp_path / "adapter"
    save_adapter(random_adapter(1), folder)
    save_adapter(random_adapter(2), folder)
    assert torch.equal(dense(load_adapter(folder)), dense(random_adapter(2)).reshape(2, 35).flip(0).flatten())
    assert sorted(os.listdir(tmp_path)) == ["adapter"]


def test_a_failed_save_leaves_the_older_adapter_and_nothing_else(tmp_path):
    save_adapter(random_adapter(1), tmp_path / "adapter")
    before = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(TypeError):
        save_adapter(random_adapter(2, not_json={1, 2}), tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == before
    assert os.listdir(tmp_path) == ["adapter"]


@pytest.mark.parametrize("setting", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"rank_pattern": {"up": 2}},
                                     {"alpha_pattern": {"up": 2}}, {"bias": "all"}, {"lora_bias": True},
                                     {"init_lora_weights": "pissa"}])
def test_adapters_that_are_more_than_scaled_b_a_are_refused_by_the_name_of_the_feature(tmp_path, setting):
    save_adapter(random_adapter(1, **setting), tmp_path / "a")
    with pytest.raises(InputError, match=next(iter(setting))):
        load_adapter(tmp_path / "a")


@pytest.mark.parametrize(("config", "place"), [("{", "adapter_config.json"), ("[]", "peft_type"),
                                               ('{"peft_type": "IA3"}', "IA3"),
                                               ('{"peft_type": "LORA", "r": 0, "lora_alpha": 1}', "json: r;"),
                                               ('{"peft_type": "LORA", "r": 3, "lora_alpha": NaN}', "lora_alpha")])
def test_a_bad_config_is_named(tmp_path, config, place):
    save_adapter(random_adapter(1), tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_text(config)
    with pytest.raises(InputError, match=place):
        load_adapter(tmp_path / "a")


def test_missing_folder_missing_files_and_a_truncated_file_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        load_adapter(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"adapter_config\.json; got no such file"):
        load_adapter(tmp_path / "empty")
    save_adapter(random_adapter(1), tmp_path / "a")
    weights = tmp_path / "a" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors; got a damaged file"):
        load_adapter(tmp_path / "a")
    weights.unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors; got no such file"):
        load_adapter(tmp_path / "a")


UP_A, UP_B = "base_model.model.up.lora_A.weight", "base_model.model.up.lora_B.weight"


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop(UP_B), "up; got no lora_B"),
    (lambda t: t.pop(UP_A), "up; got no lora_A"),
    (lambda t: t.clear(), "no tensors"),
    (lambda t: t[UP_A].__setitem__((0, 0), math.nan), "up.lora_A.weight; got NaN"),
    (lambda t: t.update({"base_model.model.up.lora_embedding_A": torch.zeros(2, 2)}), "lora_embedding_A"),
    (lambda t: t.update({UP_A: torch.zeros(2, 5)}), r"expected A \(3, in\)"),
])
def test_a_damaged_set_of_weights_is_named(tmp_path, change, message):
    save_adapter(random_adapter(1), tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(InputError, match=message):
        load_adapter(tmp_path / "a")


def test_weights_stored_in_bf16_are_read_as_fp32(tmp_path):
    save_adapter(random_adapter(1), tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path)
    assert load_adapter(tmp_path / "a").modules["up"].A.dtype == torch.float32


def test_the_config_keeps_what_it_has_and_gets_the_new_rank(tmp_path):
    merged = concatenated([random_adapter(1, task_type="CAUSAL_LM"), random_adapter(2, rank=2)], [1.0, 1.0])
    save_adapter(merged, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (5, 5, "CAUSAL_LM")


# ---- sums and geometry

def test_scaling_an_adapter_scales_its_update():
    adapter = random_adapter(1)
    torch.testing.assert_close(dense(scaled(adapter, -1.5)), -1.5 * dense(adapter))


def test_concatenation_is_the_exact_weighted_sum_of_the_updates_whatever_the_ranks():
    a, b, c = random_adapter(1, rank=3, alpha=6), random_adapter(2, rank=2, alpha=1), random_adapter(3, rank=4, alpha=4)
    total = concatenated([a, b, c], [0.5, -2.0, 1.0])
    assert (total.rank, total.scaling) == (9, 1.0)
    torch.testing.assert_close(dense(total), 0.5 * dense(a) - 2.0 * dense(b) + dense(c), atol=1e-5, rtol=1e-5)


def test_geometry_from_the_factors_equals_geometry_of_the_dense_updates():
    a, b = random_adapter(1, rank=3, alpha=6), random_adapter(2, rank=2, alpha=1)
    u, v = dense(a), dense(b)
    assert inner(a, b) == pytest.approx((u @ v).item(), rel=1e-10)
    assert norm(a) == pytest.approx(u.norm().item(), rel=1e-10)
    assert cosine(a, b) == pytest.approx((u @ v / (u.norm() * v.norm())).item(), rel=1e-10)
    assert inner_by_module(a, b)["up"] == pytest.approx((u[:35] @ v[:35]).item(), rel=1e-10)


def test_cosine_is_1_with_itself_minus_1_with_its_negation_and_nan_with_nothing():
    adapter = random_adapter(1)
    assert cosine(adapter, scaled(adapter, 3.0)) == pytest.approx(1.0, abs=1e-12)
    assert cosine(adapter, scaled(adapter, -1.0)) == pytest.approx(-1.0, abs=1e-12)
    assert math.isnan(cosine(adapter, scaled(adapter, 0.0)))


def test_a_module_that_only_one_adapter_changes_adds_nothing_to_the_inner_product():
    a, b = random_adapter(1), random_adapter(2)
    only_up = Adapter({"up": b.modules["up"]}, b.config)
    assert inner(a, only_up) == inner_by_module(a, b)["up"]


# ---- compatibility

def test_adapters_of_two_bases_are_refused_and_an_unnamed_base_is_not():
    olmo, other = random_adapter(1, base_model_name_or_path="olmo"), random_adapter(2, base_model_name_or_path="other")
    with pytest.raises(InputError, match="an adapter for another base"):
        check_compatible([olmo, random_adapter(3), other])
    check_compatible([olmo, random_adapter(2), random_adapter(3, base_model_name_or_path="olmo")])


def test_modules_and_sizes_that_differ_are_named():
    a, b = random_adapter(1), random_adapter(2)
    with pytest.raises(InputError, match="adapters 1 and 2; got modules that only one of them changes: down"):
        check_compatible([a, Adapter({"up": b.modules["up"]}, b.config)])
    with pytest.raises(InputError, match="different sizes of down"):
        check_compatible([a, Adapter({"up": b.modules["up"], "down": b.modules["up"]}, b.config)])
