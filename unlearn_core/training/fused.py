"""LoRA's linear layers with forward and backward in one function: the same numbers, fewer passes over memory."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora.layer import Linear


class FusedLora(torch.autograd.Function):
    """y = x W^T + b + scaling dropout(x) A^T B^T for a frozen W.

    PEFT computes the same in twice as many operations, and keeps x in the adapter's precision. Here A and B are read
    in the precision of x (they stay fp32 themselves), and the backward keeps x, a mask of the dropout and x A^T.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor,
                b: torch.Tensor, scaling: float, dropout: float) -> torch.Tensor:
        """x (..., in), weight (out, in), bias (out,) or None, a (r, in), b (out, r) -> (..., out)."""
        rows, mask = x.reshape(-1, x.shape[-1]), None
        a_, b_ = a.to(x.dtype), b.to(x.dtype)
        found = F.linear(rows, weight, bias)
        kept = rows
        if dropout:
            kept, mask = torch.native_dropout(rows, dropout, True)
        inner = kept @ a_.T
        found.addmm_(inner, b_.T, alpha=scaling)
        ctx.save_for_backward(rows, mask, inner, weight, a, b)
        ctx.scaling, ctx.dropout, ctx.shape = scaling, dropout, x.shape
        return found.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        """Gradients of x, a and b."""
        rows, mask, inner, weight, a, b = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        to_inner = (gradient @ b.to(rows.dtype)).mul_(ctx.scaling)
        for_b = (gradient.T @ inner).mul_(ctx.scaling)
        kept = rows if mask is None else rows * mask * (1 / (1 - ctx.dropout))
        for_a = to_inner.T @ kept
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = gradient @ weight
            if mask is None:
                for_x.addmm_(to_inner, a.to(rows.dtype))
            else:
                for_x += (to_inner @ a.to(rows.dtype)) * mask * (1 / (1 - ctx.dropout))
            for_x = for_x.view(ctx.shape)
        return for_x, None, None, for_a.to(a.dtype), for_b.to(b.dtype), None, None


@contextmanager
def fused(model: PeftModel) -> Iterator[None]:
    """Inside, the model's LoRA layers compute as `FusedLora`; layers of another kind stay as they are."""
    layers = [module for module in model.modules() if type(module) is Linear and _is_plain(module)]
    for layer in layers:
        layer.forward = types.MethodType(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: Linear) -> bool:
    """One adapter on a frozen layer of floating-point weights, without bias or variant of its own."""
    return (list(layer.lora_A) == list(layer.active_adapters) and len(layer.lora_A) == 1 and not layer.lora_variant
            and type(layer.get_base_layer()) is torch.nn.Linear and not layer.get_base_layer().weight.requires_grad
            and layer.lora_B[layer.active_adapters[0]].bias is None)


def _forward(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    base = layer.get_base_layer()
    if layer.disable_adapters:
        return base(x)
    name = layer.active_adapters[0]
    drop = layer.lora_dropout[name]
    dropout = drop.p if isinstance(drop, torch.nn.Dropout) and layer.training else 0.0
    return FusedLora.apply(x, base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight,
                           layer.scaling[name], dropout)
