"""Batches for inference: rows of equal length together, padded on the left, the model in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

Progress = Callable[[int, int, str], None]  # done, total, label


def silent(done: int, total: int, label: str) -> None:
    """The progress callback that tells nobody."""


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off and no gradients inside; the model's mode is restored, also after an error."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def context_length(model: torch.nn.Module) -> int | None:
    """Number of positions that the model was made for; None where its configuration names none."""
    return getattr(model.config, "max_position_embeddings", None)


def by_length(lengths: Sequence[int], batch_size: int, token_budget: int | None = None, shortest: float = 0.0
              ) -> Iterator[list[int]]:
    """Indices in batches, longest first, so that padding is small and memory runs out at once or never.

    A batch has at most `batch_size` rows and, padded, at most `token_budget` tokens (but at least one row). Its
    shortest row has at least `shortest` of the length of its longest.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        size = batch_size if token_budget is None else min(batch_size, max(1, token_budget // max(1, longest)))
        batch = [index for index in order[start:start + size] if lengths[index] >= shortest * longest]
        yield batch
        start += len(batch)


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device | str
                ) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and position_ids, each (rows, longest row)."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def device_of(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
