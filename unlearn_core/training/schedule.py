"""Which forget and retain items each optimizer step reads: a pure function of the settings. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unlearn_core.settings import Unlearning


@dataclass(frozen=True)
class MicroBatch:
    """Indices of the forget items of one micro-batch, and of the retain items that go with them."""

    forget: tuple[int, ...]
    retain: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """Micro-batches of all steps, for so many forget and retain items.

    One step reads `gradient_accumulation` micro-batches of `batch_size` forget items per process, each item with
    `retain_per_forget` of retain; the epochs follow one another without a gap, so the number of steps is
    floor(epochs * |forget| / items per step), at least 1. With `chunk`, all epochs over so many forget items come
    before those over the next ones (sequential unlearning, AILS-NTUA at SemEval-2025 Task 4).
    """

    forget: int
    retain: int
    settings: Unlearning
    seed: int
    processes: int = 1

    @property
    def per_step(self) -> int:
        return self.settings.per_step(self.processes)

    @property
    def steps(self) -> int:
        return self.settings.steps(self.forget, self.processes)

    @property
    def warmup(self) -> int:
        return self.settings.warmup(self.forget, self.processes)

    def micro_batches(self, step: int, process: int = 0) -> list[MicroBatch]:
        """What a process reads in a step (from 0)."""
        size = self.settings.batch_size
        first = step * self.per_step
        positions = range(first, first + self.per_step)
        chunks = [positions[i: i + size] for i in range(0, len(positions), size)]
        return [MicroBatch(tuple(self._forget_item(p) for p in chunk),
                           tuple(r for p in chunk for r in self._retain_items(p)))
                for chunk in chunks[process::self.processes]]

    def _forget_item(self, position: int) -> int:
        if not self.settings.chunk:
            epoch, place = divmod(position, self.forget)
            return self._order(epoch, self.forget, 0)[place]
        epochs, size = int(self.settings.epochs), self.settings.chunk
        number = min(position // (epochs * size), (self.forget - 1) // size)
        start = number * size
        members = range(start, min(start + size, self.forget))
        epoch, place = divmod(position - epochs * start, len(members))
        return members[self._order(epoch, len(members), 0)[place]]

    def _retain_items(self, position: int) -> list[int]:
        count = self.settings.retain_per_forget
        if self.settings.pairing == "fixed":
            item = self._forget_item(position)
            return [(item * count + k) % self.retain for k in range(count)]
        epoch, place = divmod(position, self.forget)
        order = self._order(epoch, self.retain, 1)
        return [order[(place * count + k) % self.retain] for k in range(count)]

    def _order(self, epoch: int, count: int, stream: int) -> list[int]:
        random = torch.Generator().manual_seed((self.seed * 1000 + epoch) * 2 + stream)
        return torch.randperm(count, generator=random).tolist()
