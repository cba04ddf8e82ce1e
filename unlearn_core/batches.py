"""Batches for inference: rows of equal length together, padded on the left, the model in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from unlearn_core.advice import is_out_of_memory

Found = TypeVar("Found")
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


def in_batches(work: Callable[[list[int]], Sequence[Found]], lengths: Sequence[int], batch_size: int,
               token_budget: int | None = None, shortest: float = 0.0, *,
               told: Callable[[int], None] = lambda done: None) -> list[Found]:
    """What `work` gives for each index, in their order; it is called with one batch of `by_length` after the other.

    Where a batch finds no room in memory, it and all after it are tried with half as many rows, down to one: a smaller
    batch changes results by rounding only. `told` hears after each batch how many are done.
    """
    found: list[Found | None] = [None] * len(lengths)
    batches, done = list(by_length(lengths, batch_size, token_budget, shortest)), 0
    while batches:
        results = _if_it_fits(work, batches[0])
        if results is None:
            half = len(batches[0]) // 2
            batches = [batch[i:i + half] for batch in batches for i in range(0, len(batch), half)]
            continue
        for index, result in zip(batches.pop(0), results, strict=True):
            found[index] = result
            done += 1
        told(done)
    return found


def _if_it_fits(work: Callable[[list[int]], Sequence[Found]], batch: list[int]) -> Sequence[Found] | None:
    """None where the memory is too small for a batch of several rows."""
    try:
        return work(batch)
    except (RuntimeError, MemoryError) as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


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
