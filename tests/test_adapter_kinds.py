"""What an adapter may change: chosen layers and modules, all entries of the weights, and a negated weight change."""

import copy

import pytest
import torch

from tests.tiny_lm import tiny_model
from unlearn_core.errors import InputError
from unlearn_core.merging.task_vectors import delta, load_adapter
from unlearn_core.models import add_adapter, save_adapter, with_adapter
from unlearn_core.settings import Lora
from unlearn_core.training.fused import fused

IDS = torch.arange(24).view(2, 12)


def changed(model) -> set[str]:
    """Names of the linear layers that carry an adapter."""
    return {name.removeprefix("base_model.model.model.") for name, module in model.named_modules()
            if hasattr(module, "lora_A")}


@pytest.mark.parametrize(("lora", "names"), [
    (Lora(layers=(-1,), modules=("up_proj",)), {"layers.1.mlp.up_proj"}),
    (Lora(layers=(0, -2), modules=("q_proj", "o_proj")), {"layers.0.self_attn.q_proj", "layers.0.self_attn.o_proj"}),
    (Lora(modules=("down_proj",)), {"layers.0.mlp.down_proj", "layers.1.mlp.down_proj"})])
def test_only_the_chosen_layers_and_modules_get_an_adapter(lora, names):
    assert changed(add_adapter(tiny_model(), lora, seed=0)) == names


def test_all_modules_of_a_chosen_layer_get_one():
    assert len(changed(add_adapter(tiny_model(), Lora(layers=(1,)), seed=0))) == 7


@pytest.mark.parametrize(("lora", "said"), [
    (Lora(layers=(2,)), "lora.layers; got 2; expected layers of this model, 0 to 1 or -1 to -2"),
    (Lora(modules=("up",)), "lora.modules; got up; expected linear layers of this model: down_proj, gate_proj")])
def test_a_layer_or_module_that_the_model_has_not_is_refused(lora, said):
    with pytest.raises(InputError, match=said):
        add_adapter(tiny_model(), lora, seed=0)


def test_the_restricted_adapter_is_saved_and_merged_as_such(tmp_path):
    model = add_adapter(tiny_model(), Lora(r=2, layers=(1,), modules=("up_proj",)), seed=0)
    torch.nn.init.normal_(model.get_submodule("base_model.model.model.layers.1.mlp.up_proj.lora_B.default").weight)
    save_adapter(model, tmp_path / "adapter", "tiny")
    merged, before = with_adapter(tiny_model(), tmp_path / "adapter"), tiny_model()
    apart = [name for name, p in merged.named_parameters() if not torch.equal(p, dict(before.named_parameters())[name])]
    assert apart == ["model.layers.1.mlp.up_proj.weight"]


def step(model, parameters):
    """One step of AdamW on a fixed loss."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    model(IDS, labels=IDS, use_cache=False).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("faster", [True, False])
def test_the_full_kind_trains_as_the_weights_themselves(tmp_path, faster):
    plain = tiny_model()
    linear = {name: module for name, module in plain.named_modules()
              if isinstance(module, torch.nn.Linear) and name != "lm_head"}
    step(plain, [module.weight for module in linear.values()])

    model = add_adapter(copy.deepcopy(tiny_model()), Lora(kind="full", dropout=0.5), seed=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == sum(module.weight.numel() for module in linear.values())
    if faster:
        with fused(model):
            step(model, trained)
    else:
        step(model, trained)
    save_adapter(model, tmp_path / "adapter", "tiny")
    adapter = load_adapter(tmp_path / "adapter")
    assert adapter.modules.keys() == linear.keys()
    before = dict(tiny_model().named_modules())
    for name, factors in adapter.modules.items():
        change = linear[name].weight - before[name].weight
        torch.testing.assert_close(delta(factors, adapter.scaling), change, rtol=1e-3, atol=2e-6, msg=name)
        assert change.abs().max() > 1e-3


def test_the_full_kind_needs_layers_as_wide_as_the_model(monkeypatch):
    model = tiny_model()
    model.model.layers[0].self_attn.q_proj = torch.nn.Linear(16, 8, bias=False)
    with pytest.raises(InputError, match=r"full for .*q_proj of shape \(8, 16\); expected layers with 32 inputs"):
        add_adapter(model, Lora(kind="full"), seed=0)


def test_a_scale_of_minus_one_negates_what_is_saved_and_leaves_the_model(tmp_path):
    model = add_adapter(tiny_model(), Lora(r=2, modules=("up_proj",)), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_adapter(model, tmp_path / "as_trained", "tiny")
    save_adapter(model, tmp_path / "negated", "tiny", scale=-1.0)
    save_adapter(model, tmp_path / "again", "tiny")
    as_trained, negated, again = (load_adapter(tmp_path / name) for name in ("as_trained", "negated", "again"))
    for name, factors in as_trained.modules.items():
        torch.testing.assert_close(delta(negated.modules[name], 1.0), -delta(factors, 1.0))
        assert torch.equal(again.modules[name].B, factors.B)
    torch.testing.assert_close(negated.scaling, as_trained.scaling)
