"""Training: a base that memorises its data, and LoRA adapters that unlearn a part of it. Knows no run folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence

from unlearn_core import losses
from unlearn_core.data import Item
from unlearn_core.encoding import Batch, Encoded, collate, encode_all
from unlearn_core.evaluation.batches import evaluating
from unlearn_core.optimise import Row, cosine_schedule, linear_schedule, optimise
from unlearn_core.recipe import Base, Encoding, Unlearning

REFERENCE_CACHE_BYTES = 1 << 30  # reference log-probs beyond this are recomputed at each step
# Padded positions that a small model computes in the time a forward's launch takes: on a CPU, on an accelerator.
CPU_OVERHEAD, ACCELERATOR_OVERHEAD = 128, 4096


def memorise(model, tokenizer, items: Sequence[Item], base: Base, encoding: Encoding, *, seed: int,
             accelerator: Accelerator, log: Callable[[Row], None], state_dir: Path | None = None) -> None:
    """Train all weights by cross-entropy on every token of the items until they are memorised.

    Batches hold items of similar length; the order follows from the seed and the epoch alone.
    """
    rows = encode_all(tokenizer, items, encoding)
    per_epoch = math.ceil(len(rows) / base.batch_size)
    steps = base.steps(len(rows))
    order: dict[int, list[list[int]]] = {}
    forward = accelerator.prepare_model(model)

    def step_losses(step: int):
        epoch, number = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = _length_grouped([len(row.ids) for row in rows], base.batch_size, seed + epoch)
        chosen = [rows[i] for i in order[epoch][number]]
        batch = collate(chosen, pad_id=tokenizer.pad_token_id, side="right", all_labels=True).to(accelerator.device)
        logits = forward(**batch.inputs(), use_cache=False).logits
        nll = losses.token_nll(logits, batch.labels)
        loss = losses.token_mean(nll, losses.labelled(batch.labels))
        # Every process reads the same batch, so only one counts it.
        tokens = batch.real_tokens if accelerator.is_main_process else 0
        yield loss, {"epoch": (step + 1) / per_epoch, "loss": loss.detach(), "tokens": tokens}

    torch.manual_seed(seed)
    save_every = max(1, steps // 5)
    optimise(model, step_losses, steps=steps, lr_at=cosine_schedule(base.lr, int(base.warmup_share * steps), steps),
             weight_decay=base.weight_decay, clip=base.clip, beta2=base.adam_beta2, accelerator=accelerator, log=log,
             state_dir=state_dir, save_at=frozenset(range(save_every, steps, save_every)))
    accelerator.free_memory()  # it holds on to every model that it prepared


def _length_grouped(lengths: list[int], batch_size: int, seed: int) -> list[list[int]]:
    """Batches of indices in random order, the items of a batch being of similar length."""
    random = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(lengths), generator=random).tolist()
    pool = batch_size * 8
    batches = []
    for start in range(0, len(shuffled), pool):
        near = sorted(shuffled[start: start + pool], key=lengths.__getitem__)
        batches += [near[i: i + batch_size] for i in range(0, len(near), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=random).tolist()]


@dataclass(frozen=True)
class Schedule:
    """Which forget and retain items each optimizer step reads; a pure function of the settings.

    One step reads `gradient_accumulation` micro-batches of `batch_size` items per process; the epochs follow one
    another without a gap, so the number of steps is floor(epochs * |forget| / items per step), at least 1.
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

    def micro_batches(self, step: int, process: int = 0) -> list[list[tuple[int, int]]]:
        """(forget index, retain index) pairs of each micro-batch that a process reads in a step (from 0)."""
        size = self.settings.batch_size
        first = step * self.per_step
        pairs = [self._pair(first + offset) for offset in range(self.per_step)]
        chunks = [pairs[i: i + size] for i in range(0, len(pairs), size)]
        return chunks[process::self.processes]

    def _pair(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.forget)
        item = self._order(epoch, self.forget, 0)[place]
        if self.settings.pairing == "fixed":
            return item, item % self.retain
        return item, self._order(epoch, self.retain, 1)[place % self.retain]

    def _order(self, epoch: int, count: int, stream: int) -> list[int]:
        random = torch.Generator().manual_seed((self.seed * 1000 + epoch) * 2 + stream)
        return torch.randperm(count, generator=random).tolist()


@dataclass(frozen=True)
class Reader:
    """Runs rows through a model and keeps what the losses read: answer NLL, and logits at KLR's positions."""

    collate: Callable[[list[Encoded]], Batch]
    positions: str  # Unlearning.klr_positions
    overhead: int  # what one more forward costs, in padded positions
    width: int = 0  # `collate` pads to this at least

    def count_positions(self, row: Encoded) -> int:
        """Number of KLR's positions in a row."""
        answer = len(row.ids) - max(row.prompt_tokens, 1)  # nothing predicts the first token
        return {"answer": answer, "real": len(row.ids), "padded": max(self.width, len(row.ids))}[self.positions]

    def read(self, model, rows: list[Encoded], klr_from: int) -> tuple[list[torch.Tensor], list[torch.Tensor], int]:
        """Per row the NLL of its labelled tokens (answer tokens,), in nats, and from row `klr_from` on the logits
        (positions, V) that KLR compares; and the number of real tokens.

        Rows of similar length share a forward, so that short questions are not padded to the longest text.
        """
        nll: dict[int, torch.Tensor] = {}
        logits: dict[int, torch.Tensor] = {}
        for group in length_groups([max(self.width, len(row.ids)) for row in rows], self.overhead):
            batch = self.collate([rows[i] for i in group])
            found = model(**batch.inputs(), use_cache=False).logits
            mask = losses.labelled(batch.labels)
            nll |= zip(group, losses.token_nll(found, batch.labels)[mask].split(mask.sum(1).tolist()), strict=True)
            wanted = torch.tensor([i >= klr_from for i in group], device=mask.device)[:, None]
            wanted = wanted & losses.klr_positions(batch.labels, batch.attention_mask, self.positions)
            logits |= zip(group, found[wanted].split(wanted.sum(1).tolist()), strict=True)
        rows_in_order = range(len(rows))
        return [nll[i] for i in rows_in_order], [logits[i] for i in rows_in_order], sum(len(r.ids) for r in rows)


def length_groups(lengths: Sequence[int], overhead: int) -> list[list[int]]:
    """Indices in one group, or in two (longer and shorter rows) where that saves more padding than `overhead`."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    padded = {k: k * lengths[order[0]] + (len(order) - k) * lengths[order[k]] for k in range(1, len(order))}
    best = min(padded, key=padded.get, default=0)
    if not best or padded[best] + overhead >= len(order) * lengths[order[0]]:
        return [list(range(len(lengths)))]
    return [order[:best], order[best:]]


class Reference:
    """The original in the losses: the same model with its adapter disabled and without dropout.

    Answer NLL is computed once. Retain log-probs at KLR's positions are too, where they fit in
    REFERENCE_CACHE_BYTES; otherwise each step runs one more forward without gradient.
    """

    def __init__(self, model: PeftModel, forget: list[Encoded], retain: list[Encoded], reader: Reader,
                 wants_klr: bool):
        self.model, self.reader, self.retain = model, reader, retain
        self.forget_nll = [nll for chunk in _chunks(forget) for nll in self._read(chunk, len(chunk))[0]]
        count = sum(reader.count_positions(row) for row in retain)
        self.is_cached = wants_klr and count * model.config.vocab_size * 4 <= REFERENCE_CACHE_BYTES
        self.retain_nll: list[torch.Tensor] = []
        self.cached: list[torch.Tensor] = []
        for chunk in _chunks(retain):
            nll, logits, _ = self._read(chunk, 0 if self.is_cached else len(chunk))
            self.retain_nll += nll
            self.cached += [row.float().log_softmax(-1) for row in logits] if self.is_cached else []

    def retain_log_probs(self, index: list[int]) -> list[torch.Tensor]:
        """Per retain row (positions, V) log-probs at KLR's positions."""
        if self.is_cached:
            return [self.cached[i] for i in index]
        return [row.float().log_softmax(-1) for row in self._read([self.retain[i] for i in index], 0)[1]]

    def _read(self, rows: list[Encoded], klr_from: int) -> tuple[list[torch.Tensor], list[torch.Tensor], int]:
        with evaluating(self.model), self.model.disable_adapter():
            return self.reader.read(self.model, rows, klr_from)


def _chunks(rows: list, size: int = 16):
    return (rows[i: i + size] for i in range(0, len(rows), size))


def unlearn(model: PeftModel, tokenizer, forget: Sequence[Item], retain: Sequence[Item], settings: Unlearning,
            encoding: Encoding, *, seed: int, accelerator: Accelerator, log: Callable[[Row], None],
            state_dir: Path | None = None, on_checkpoint: Callable[[int], None] = lambda step: None) -> int:
    """Train the adapter with NPO + GDR + KLR (arXiv 2503.21088); the number of optimizer steps.

    Logged per step, means over micro-batches: npo, gdr, klr and the same `_weighted`, loss, npo_brake, forget_nll,
    forget_nll_reference, retain_nll, retain_nll_reference (nats per answer token), epoch, and `optimise`'s columns.
    """
    forget_rows, retain_rows = (encode_all(tokenizer, items, encoding) for items in (forget, retain))
    length = encoding.max_length if settings.klr_positions == "padded" else 0

    def collate_rows(rows: list[Encoded]) -> Batch:
        return collate(rows, pad_id=tokenizer.pad_token_id, side=encoding.padding_side,
                       length=length).to(accelerator.device)

    overhead = CPU_OVERHEAD if accelerator.device.type == "cpu" else ACCELERATOR_OVERHEAD
    reader = Reader(collate_rows, settings.klr_positions, overhead, length)
    reference = Reference(model, forget_rows, retain_rows, reader, settings.klr_weight > 0)
    forward = accelerator.prepare_model(model)
    schedule = Schedule(len(forget_rows), len(retain_rows), settings, seed, accelerator.num_processes)

    def step_losses(step: int):
        micro_batches = schedule.micro_batches(step, accelerator.process_index)
        for part in [micro_batches] if settings.joined else [[m] for m in micro_batches]:
            loss, row = _part_loss(forward, part, forget_rows, retain_rows, reference, settings)
            yield loss, {"epoch": (step + 1) * schedule.per_step / schedule.forget, **row}

    torch.manual_seed(seed)
    kept = settings.checkpoints
    optimise(model, step_losses, steps=schedule.steps,
             lr_at=linear_schedule(settings.lr, schedule.warmup, schedule.steps), weight_decay=settings.weight_decay,
             clip=settings.clip, accelerator=accelerator, log=log, state_dir=state_dir, on_save=on_checkpoint,
             save_at=frozenset(-(-schedule.steps * k // kept) for k in range(1, kept + 1)))  # rounded up
    accelerator.free_memory()  # it holds on to every model that it prepared
    return schedule.steps


def _part_loss(forward, micro_batches: list[list[tuple[int, int]]], forget_rows: list[Encoded],
               retain_rows: list[Encoded], reference: Reference, settings: Unlearning):
    """Mean total loss of some micro-batches, all their rows read together, and the row to log."""
    forget = [f for micro in micro_batches for f, _ in micro]
    retain = [r for micro in micro_batches for _, r in micro]
    nll, logits, tokens = reference.reader.read(
        forward, [forget_rows[i] for i in forget] + [retain_rows[i] for i in retain], klr_from=len(forget))
    log_probs_reference = reference.retain_log_probs(retain) if settings.klr_weight else []

    total, rows, first = 0.0, [], 0
    for micro in micro_batches:
        f, r = slice(first, first + len(micro)), slice(len(forget) + first, len(forget) + first + len(micro))
        first += len(micro)
        nll_f, mask_f = _padded(nll[f])
        nll_r, mask_r = _padded(nll[r])
        reference_f, _ = _padded([reference.forget_nll[i] for i in forget[f]])
        reference_r, _ = _padded([reference.retain_nll[i] for i in retain[f]])
        terms = {"npo": losses.npo(nll_f, reference_f, mask_f, settings.beta, settings.npo_reduction),
                 "gdr": losses.gdr(nll_r, mask_r)}
        if settings.klr_weight:
            terms["klr"] = losses.klr(torch.cat(logits[r]), torch.cat(log_probs_reference[f]))
        weighted = {key: getattr(settings, f"{key}_weight") * value for key, value in terms.items()}
        loss = sum(weighted.values())
        total = total + loss
        with torch.no_grad():
            rows.append({
                **terms, **{f"{key}_weighted": value for key, value in weighted.items()}, "loss": loss,
                "npo_brake": losses.npo_brake(nll_f, reference_f, mask_f, settings.beta, settings.npo_reduction),
                "forget_nll": losses.token_mean(nll_f, mask_f),
                "forget_nll_reference": losses.token_mean(reference_f, mask_f),
                "retain_nll": losses.token_mean(nll_r, mask_r),
                "retain_nll_reference": losses.token_mean(reference_r, mask_r)})
    count = len(micro_batches)
    row = {key: float(sum(row[key].detach() for row in rows)) / count for key in rows[0]}
    return total / count, {**row, "tokens": tokens}


def _padded(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of different lengths as (B, T) with zeros behind, and the (B, T) mask of what is real."""
    mask = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)
    return pad_sequence(list(rows), batch_first=True), mask
