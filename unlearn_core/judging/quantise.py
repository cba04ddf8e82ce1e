"""Weights rounded to a few bits and back: does what a model forgot stay forgotten once it is stored more coarsely?

Round to nearest, symmetric around 0: the largest magnitude of a row (int8) or of a group of neighbours within a row
(int4) becomes the outermost of 2^bits - 1 levels. Biases, norms, embeddings and the head keep their precision, as in
weight-only quantisation. The rounded numbers are put back as they are dequantised, so any device can run them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from unlearn_core.errors import InputError

GROUP = 32  # weights of a row that share a scale in int4
FULL, INT8, INT4 = SETTINGS = ("fp", "int8", "int4")  # "fp": the precision that the model has


def rounded(weight: torch.Tensor, bits: int, group: int = 0) -> torch.Tensor:
    """The nearest of the levels -n to n times a scale, n = 2^(bits - 1) - 1: (out, in) -> (out, in) of the same dtype.

    `group`: neighbours along `in` that share a scale, max |w| / n; 0: the whole row. A last group may be smaller.
    """
    levels, width = 2 ** (bits - 1) - 1, weight.shape[1]
    size = group or width
    rows = F.pad(weight.float(), (0, -width % size)).unflatten(1, (-1, size))
    scale = rows.abs().amax(-1, keepdim=True) / levels
    steps = (rows / torch.where(scale > 0, scale, 1)).round()
    return (steps * scale).flatten(1)[:, :width].to(weight.dtype)


def linear_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """{name: weight (out, in)} of every linear layer but the head; views, so that writing to them changes the model.

    InputError where there is none, since nothing would be rounded and nothing could come back.
    """
    head = model.get_output_embeddings()
    found = {name: module.weight.T if isinstance(module, Conv1D) else module.weight
             for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head}
    if not found:
        raise InputError("quantisation", got=f"{type(model).__name__}, which has no linear layer but its head",
                         expected="a transformer with linear layers")
    return found


def rounded_share(model: PreTrainedModel) -> float:
    """Which share of all of a model's parameters is rounded."""
    return sum(weight.numel() for weight in linear_weights(model).values()) / sum(p.numel() for p in model.parameters())


@contextmanager
def quantised(model: PreTrainedModel, setting: str, group: int = GROUP) -> Iterator[None]:
    """The model with its linear weights rounded as one of `SETTINGS` says; afterwards it is as before.

    int8 has a scale per output channel, int4 one per `group` neighbours. The weights are kept meanwhile, so this takes
    the memory of as many weights more.
    """
    if setting not in SETTINGS:
        raise InputError("quantisation", got=setting, expected=f"one of {', '.join(SETTINGS)}")
    weights = {} if setting == FULL else linear_weights(model)
    before: dict[str, torch.Tensor] = {}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                before[name] = weight.detach().clone()
                weight.copy_(rounded(weight, 8) if setting == INT8 else rounded(weight, 4, group))
        yield
    finally:
        with torch.no_grad():
            for name, kept in before.items():
                weights[name].copy_(kept)
