"""Rows through a model for training: one or two forwards, and logits only at the positions that a loss reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from unlearn_core.batches import device_of, evaluating
from unlearn_core.encoding import Encoded, collate

# What one more forward and backward through a layer costs beside its arithmetic, in weights times positions; measured
# on a CPU, reckoned for a GPU from some 300 launches a layer.
CPU_OVERHEAD, ACCELERATOR_OVERHEAD = 3.4e7, 1e11
NOTHING = ""  # no distributions wanted of a row


@dataclass(frozen=True)
class Read:
    """What a loss reads of a row: `nll` of each answer token (answer tokens,) in nats, and the next-token
    log-probabilities at the positions that were wanted (positions, V), fp32; on request what the head read there,
    `hidden` (positions, H)."""

    nll: torch.Tensor
    log_probs: torch.Tensor
    hidden: torch.Tensor | None = None


def answer_tokens(row: Encoded) -> int:
    """Number of a row's labelled tokens; nothing predicts the first of a row."""
    return len(row.ids) - max(row.prompt_tokens, 1)


def count_positions(row: Encoded, wanted: str, width: int = 0) -> int:
    """Number of positions at which distributions are wanted: "" none, "answer" those that predict an answer token,
    "real" all tokens, "padded" all of the padded row (released code, where short answers make it mostly padding)."""
    return {NOTHING: 0, "answer": answer_tokens(row), "real": len(row.ids),
            "padded": max(width, len(row.ids))}[wanted]


class Reader:
    """Runs rows through a model.

    `width`: what rows whose padding is wanted are padded to at least. `packed`: rows follow one another in one sequence
    without padding and attend to their own tokens only (by restarting position ids, for SDPA attention).
    """

    def __init__(self, model, *, pad_id: int, side: str, width: int = 0, packed: bool = False):
        self.pad_id, self.side, self.width, self.packed = pad_id, side, width, packed
        self.device, self.takes_mask, self.overhead = device_of(model), takes_mask(model), overhead(model)
        self.head = model.get_output_embeddings()

    def read(self, model, rows: Sequence[Encoded], wanted: Sequence[str], hidden: bool = False) -> list[Read]:
        """One `Read` per row; `wanted` as in `count_positions`.

        Rows of similar length share a forward, so that short questions are not padded to the longest text.
        """
        found: dict[int, Read] = {}
        for group in self._groups(rows, wanted):
            found |= zip(group, self._forward(model, [rows[i] for i in group], [wanted[i] for i in group], hidden),
                         strict=True)
        return [found[i] for i in range(len(rows))]

    def text_nll(self, model, rows: Sequence[Encoded]) -> torch.Tensor:
        """Mean -log p of all tokens of the rows, prompts included, but the first of each; a scalar in nats."""
        texts = [replace(row, prompt_tokens=0) for row in rows]
        return torch.cat([read.nll for read in self.read(model, texts, [NOTHING] * len(texts))]).mean()

    def _groups(self, rows: Sequence[Encoded], wanted: Sequence[str]) -> list[list[int]]:
        if self.packed:
            return [list(range(len(rows)))]
        return length_groups([count_positions(row, "padded", self.width if choice == "padded" else 0)
                              for row, choice in zip(rows, wanted, strict=True)], self.overhead)

    def _forward(self, model, rows: list[Encoded], wanted: list[str], hidden: bool) -> list[Read]:
        inputs, slots = self._packed(rows) if self.packed else self._padded(rows, wanted)
        kept, answers = zip(*(_positions(row, slot, choice, self.side)
                              for row, slot, choice in zip(rows, slots, wanted, strict=True)), strict=True)
        keep = torch.zeros(inputs["input_ids"].numel(), dtype=torch.bool)
        for places in kept:
            keep[places.start: places.stop] = True
        keep = keep.view(inputs["input_ids"].shape).to(self.device)
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        counts = list(map(len, kept))
        seen: list[torch.Tensor] = []
        with _seen_by(self.head, seen) if hidden else nullcontext():
            log_probs = self._logits_at(model, inputs, keep).float().log_softmax(-1).split(counts)
        before = (seen[0] if seen[0].ndim == 2 else seen[0][keep]).split(counts) if hidden else [None] * len(rows)
        return [_read(row, found, places, answer, choice, state) for row, found, places, answer, choice, state
                in zip(rows, log_probs, kept, answers, wanted, before, strict=True)]

    def _logits_at(self, model, inputs: dict[str, torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
        """Logits (N, V) at the N positions that the mask (B, T) keeps, in their order."""
        if self.takes_mask:
            return model(**inputs, use_cache=False, logits_to_keep=keep).logits.flatten(0, -2)
        # A compiled model may leave out hooks that it did not have when it was compiled.
        with nullcontext() if hasattr(model, "_orig_mod") else _reading_only(self.head, keep):
            logits = model(**inputs, use_cache=False).logits
        return logits if logits.ndim == 2 else logits[keep]

    def _padded(self, rows: list[Encoded], wanted: list[str]) -> tuple[dict[str, torch.Tensor], list[range]]:
        batch = collate(rows, pad_id=self.pad_id, side=self.side, length=self.width if "padded" in wanted else 0)
        width = batch.input_ids.shape[1]
        return batch.inputs(), [range(i * width, (i + 1) * width) for i in range(len(rows))]

    def _packed(self, rows: list[Encoded]) -> tuple[dict[str, torch.Tensor], list[range]]:
        ids = torch.tensor([[token for row in rows for token in row.ids]])
        positions = torch.cat([torch.arange(len(row.ids)) for row in rows])[None]
        ends = torch.tensor([len(row.ids) for row in rows]).cumsum(0).tolist()
        return ({"input_ids": ids, "position_ids": positions},
                [range(end - len(row.ids), end) for row, end in zip(rows, ends, strict=True)])


def _positions(row: Encoded, slot: range, wanted: str, side: str) -> tuple[range, range]:
    """(positions whose logits are needed, those of them that predict an answer token), places in the flat batch."""
    start = slot.stop - len(row.ids) if side == "left" else slot.start
    real = range(start, start + len(row.ids))
    answers = real[max(row.prompt_tokens, 1) - 1: -1]
    return {NOTHING: answers, "answer": answers, "real": real, "padded": slot}[wanted], answers


@contextmanager
def _hooked(head: torch.nn.Module, hook: Callable[[torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
    """Inside, `hook` is given what the head reads, and may give it something else."""
    handle = head.register_forward_pre_hook(lambda _, inputs: hook(inputs[0]))
    try:
        yield
    finally:
        handle.remove()


def _seen_by(head: torch.nn.Module, seen: list[torch.Tensor]) -> AbstractContextManager[None]:
    """Inside, the list gets what the head reads."""
    return _hooked(head, seen.append)


def _reading_only(head: torch.nn.Module, keep: torch.Tensor) -> AbstractContextManager[None]:
    """Inside, the head reads the states (N, H) at the positions that the mask (B, T) keeps."""
    return _hooked(head, lambda states: states[keep])


def _read(row: Encoded, log_probs: torch.Tensor, kept: range, answers: range, wanted: str,
          hidden: torch.Tensor | None) -> Read:
    targets = torch.tensor(row.ids[max(row.prompt_tokens, 1):], device=log_probs.device)
    first = answers.start - kept.start
    nll = F.nll_loss(log_probs[first: first + len(answers)], targets, reduction="none")
    return Read(nll, log_probs if wanted else log_probs[:0], hidden)


def takes_mask(model) -> bool:
    """Whether the model's head runs at the positions of a boolean `logits_to_keep` alone.

    Older versions of transformers (5.17) take no such mask, and models with a head of their own may ignore it: so it is
    tried. Of others what the head reads is chosen on its way there, which a compiled model does not let be seen.
    """
    device = device_of(model)
    keep = torch.tensor([[True, False]], device=device)
    try:
        with evaluating(model):
            logits = model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=False,
                           logits_to_keep=keep).logits
    except (TypeError, IndexError, ValueError):
        return False
    return logits.shape[:-1].numel() == 1


def overhead(model) -> float:
    """Padded positions that the model computes in the time that one more forward and backward costs."""
    each = CPU_OVERHEAD if device_of(model).type == "cpu" else ACCELERATOR_OVERHEAD
    return each * model.config.num_hidden_layers / sum(p.numel() for p in model.parameters())


def length_groups(lengths: Sequence[int], overhead: float) -> list[list[int]]:
    """Indices in groups of similar length, longest first, that together need fewest positions: each group is padded to
    its longest row and costs `overhead` positions more."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    best, first = [0.0], [0]  # of the rows up to each place: least cost, where the last group begins
    for end in range(1, len(order) + 1):
        costs = [best[start] + overhead + (end - start) * lengths[order[start]] for start in range(end)]
        first.append(min(range(end), key=costs.__getitem__))
        best.append(costs[first[end]])
    groups, end = [], len(order)
    while end:
        groups.append(order[first[end]: end])
        end = first[end]
    return groups[::-1]
