"""LoRA in one function against PEFT's own layers: outputs, gradients, dropout, and which layers it leaves alone."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.tiny_lm import tiny_model
from unlearn_core.models import add_adapter
from unlearn_core.settings import Lora
from unlearn_core.training.fused import FusedLora, fused

IDS = torch.arange(24).view(2, 12)


def adapted(dropout: float = 0.0):
    model = add_adapter(tiny_model(), Lora(r=4, alpha=12.0, dropout=dropout), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.train()


def outputs_and_gradients(model):
    torch.manual_seed(5)
    logits = model(IDS, use_cache=False).logits
    logits.square().mean().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_are_pefts_also_with_its_dropout(dropout):
    model = adapted(dropout)
    logits, gradients = outputs_and_gradients(copy.deepcopy(model))
    with fused(model):
        ours, own = outputs_and_gradients(model)
    torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (own[name] - gradient).norm().item() < 1e-5 * gradient.norm().item(), name


@pytest.mark.parametrize("bias", [True, False])
def test_the_derivatives_are_those_by_differences(bias):
    torch.manual_seed(0)
    shapes = ((3, 5), (4, 5), (4,), (2, 5), (4, 2))  # x, W, b, A, B
    x, weight, offset, a, b = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    for tensor in (x, a, b):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, a, b: FusedLora.apply(x, weight, offset if bias else None, a, b, 1.5, 0.0), (x, a, b))


def test_a_disabled_adapter_is_the_base_and_evaluation_has_no_dropout():
    model = adapted(dropout=0.5)
    with fused(model), torch.no_grad():
        with model.disable_adapter():
            torch.testing.assert_close(model(IDS).logits, tiny_model()(IDS).logits, rtol=1e-5, atol=1e-5)
        model.eval()
        assert torch.equal(model(IDS).logits, model(IDS).logits)


def test_afterwards_the_layers_are_pefts_again_also_after_an_error():
    model = adapted()
    with fused(model):
        assert any("forward" in vars(module) for module in model.modules())
    with pytest.raises(IndexError), fused(model):
        model(torch.tensor([[10_000]]))  # no such token
    assert not any("forward" in vars(module) for module in model.modules())


def test_layers_of_another_kind_stay_pefts():
    dora = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules=["q_proj"], use_dora=True))
    two = adapted()
    two.add_adapter("second", two.peft_config["default"])
    for model in (dora, two):
        with fused(model):
            assert not any("forward" in vars(module) for module in model.modules())


def test_in_bf16_the_adapter_stays_in_fp32_and_what_is_kept_is_smaller():
    torch.manual_seed(0)
    x, weight = torch.randn(64, 32, dtype=torch.bfloat16), torch.randn(16, 32, dtype=torch.bfloat16)
    a, b = torch.randn(4, 32, requires_grad=True), torch.randn(16, 4, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        found = FusedLora.apply(x, weight, None, a, b, 2.0, 0.0)
    found.float().sum().backward()
    assert (found.dtype, a.grad.dtype, b.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    exact = x.double() @ weight.double().T + 2 * (x.double() @ a.double().T) @ b.double().T
    assert ((found.double() - exact).norm() / exact.norm()).item() < 0.01
    assert not any(t.dtype == torch.float32 and t.numel() == x.numel() for t in kept)  # PEFT keeps x in fp32
