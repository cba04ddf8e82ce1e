"""The original in the losses: the same model with its adapter disabled and without dropout, kept or computed again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from unlearn_core.batches import evaluating
from unlearn_core.encoding import Encoded
from unlearn_core.files import reserve
from unlearn_core.settings import Unlearning
from unlearn_core.training.forward import NOTHING, Read, Reader, count_positions

CHUNK = 16  # rows that the reference reads together
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "top_k": torch.float32}


@dataclass(frozen=True)
class Distributions:
    """Next-token distributions of the reference at N positions: `log_probs` (N, V), or those of the k likeliest
    `tokens`, both (N, k)."""

    log_probs: torch.Tensor
    tokens: torch.Tensor | None = None


class Reference:
    """Answer NLL of forget and retain rows, computed once; and what KLR compares with on retain.

    That is kept as `settings.klr_reference` says: whole in fp32 or bf16 (a relative error of 2^-9 in a
    log-probability), as the states before the head ("hidden", exact), or the `klr_top_k` likeliest tokens and the rest
    as one ("top_k", a lower bound of KL); in memory on the model's device, or in a file mapped from `scratch`.
    "forward" runs one more forward without gradient at each step instead, and so does a model whose logits are not
    merely its head's.
    """

    def __init__(self, model: PeftModel, forget: list[Encoded], retain: list[Encoded], reader: Reader,
                 settings: Unlearning, scratch: Path | None = None):
        self.model, self.reader, self.retain = model, reader, retain
        self.wanted = settings.klr_positions if settings.klr_weight else NOTHING
        self.forget_nll = [read.nll for chunk in _chunks(forget) for read in self._read(chunk, NOTHING)]
        ends = np.cumsum([0, *(count_positions(row, self.wanted, reader.width) for row in retain)]).tolist()
        config, dtype = model.config, next(model.parameters()).dtype
        self.kind, _ = settings.kept_reference(ends[-1], config.vocab_size, config.hidden_size * dtype.itemsize)
        if self.kind == "hidden" and not self._is_heads_own(retain[:1]):
            self.kind = "forward"
        columns = {"top_k": min(settings.klr_top_k, config.vocab_size), "hidden": config.hidden_size}
        folder = scratch if settings.klr_reference_place == "disk" else None
        self.kept: list[Distributions] = []  # of "hidden", the states in place of log-probabilities
        if self.kind != "forward":
            shape = ends[-1], columns.get(self.kind, config.vocab_size)
            table = _allocate(shape, DTYPES.get(self.kind, dtype), reader.device, folder)
            tokens = _allocate(shape, torch.int32, reader.device, folder) if self.kind == "top_k" else None
            self.kept = [Distributions(table[a:b], None if tokens is None else tokens[a:b]) for a, b in pairwise(ends)]
        self.retain_nll = [nll for start in range(0, len(retain), CHUNK) for nll in self._keep_chunk(start)]

    def distributions(self, index: Sequence[int]) -> list[Distributions]:
        """What the reference says at KLR's positions of these retain rows."""
        if not self.kept:
            return [Distributions(read.log_probs) for read in self._read([self.retain[i] for i in index], self.wanted)]
        found = [_on(self.kept[i], self.reader.device) for i in index]
        if self.kind != "hidden":
            return found
        return [Distributions(log_probs) for log_probs in
                self._from_hidden(torch.cat([one.log_probs for one in found])).split([len(o.log_probs) for o in found])]

    def _keep_chunk(self, start: int) -> list[torch.Tensor]:
        """Answer NLL of CHUNK retain rows, whose distributions are kept meanwhile."""
        reads = self._read(self.retain[start: start + CHUNK], self.wanted if self.kept else NOTHING,
                           hidden=self.kind == "hidden")
        for place, read in zip(self.kept[start: start + CHUNK], reads, strict=False):
            if self.kind == "hidden":
                place.log_probs.copy_(read.hidden)
            elif self.kind == "top_k":
                likeliest = read.log_probs.topk(place.tokens.shape[1])
                place.log_probs.copy_(likeliest.values)
                place.tokens.copy_(likeliest.indices)
            else:
                place.log_probs.copy_(read.log_probs)
        return [read.nll for read in reads]

    @torch.no_grad()
    def _from_hidden(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.get_output_embeddings()(hidden).float().log_softmax(-1)

    def _is_heads_own(self, rows: list[Encoded]) -> bool:
        """Whether the model's logits are what its head makes of the states, without a scale or a cap afterwards."""
        [read] = self._read(rows, "real", hidden=True)
        exact = read.hidden.dtype == torch.float32
        return torch.allclose(self._from_hidden(read.hidden), read.log_probs, rtol=0, atol=1e-3 if exact else 5e-2)

    def _read(self, rows: list[Encoded], wanted: str, hidden: bool = False) -> list[Read]:
        with evaluating(self.model), self.model.disable_adapter():
            return self.reader.read(self.model, rows, [wanted] * len(rows), hidden)


def _on(kept: Distributions, device: torch.device) -> Distributions:
    return Distributions(kept.log_probs.to(device), None if kept.tokens is None else kept.tokens.to(device))


def _allocate(shape: tuple[int, int], dtype: torch.dtype, device: torch.device, folder: Path | None) -> torch.Tensor:
    """An empty tensor in memory, or mapped from a nameless file in the folder that goes with the process."""
    if folder is None:
        return torch.empty(shape, dtype=dtype, device=device)
    folder.mkdir(parents=True, exist_ok=True)
    size = shape[0] * shape[1] * dtype.itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        reserve(file, size)
        mapped = np.memmap(file, dtype=np.uint8, shape=(max(size, 1),))
    return torch.from_numpy(mapped[:size]).view(dtype).view(shape)


def _chunks(rows: list):
    return (rows[i: i + CHUNK] for i in range(0, len(rows), CHUNK))
