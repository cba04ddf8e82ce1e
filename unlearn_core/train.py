"""Training: a base that memorises its data, and LoRA adapters that unlearn a part of it. Knows no run folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import PeftModel

from unlearn_core import losses
from unlearn_core.data import Item
from unlearn_core.encoding import Batch, Encoded, collate, encode
from unlearn_core.optimise import Row, cosine_schedule, linear_schedule, optimise
from unlearn_core.recipe import Base, Encoding, Unlearning

REFERENCE_CACHE_BYTES = 1 << 30  # reference log-probs beyond this are recomputed at each step


def memorise(model, tokenizer, items: Sequence[Item], base: Base, encoding: Encoding, *, seed: int,
             accelerator: Accelerator, log: Callable[[Row], None], state_dir: Path | None = None) -> None:
    """Train all weights by cross-entropy on every token of the items until they are memorised.

    Batches hold items of similar length; the order follows from the seed and the epoch alone.
    """
    rows = [encode(tokenizer, item, encoding) for item in items]
    per_epoch = math.ceil(len(rows) / base.batch_size)
    steps = base.epochs * per_epoch
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
        yield loss, {"epoch": (step + 1) / per_epoch, "loss": loss.detach(), "tokens": batch.real_tokens}

    torch.manual_seed(seed)
    save_every = max(1, steps // 5)
    optimise(model, step_losses, steps=steps, lr_at=cosine_schedule(base.lr, int(base.warmup_share * steps), steps),
             weight_decay=base.weight_decay, clip=base.clip, beta2=base.adam_beta2, accelerator=accelerator, log=log,
             state_dir=state_dir, save_at=frozenset(range(save_every, steps, save_every)))


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
        return self.settings.batch_size * self.settings.gradient_accumulation * self.processes

    @property
    def steps(self) -> int:
        return max(1, int(self.settings.epochs * self.forget // self.per_step))

    @property
    def warmup(self) -> int:
        return int(self.settings.warmup_epochs * self.forget // self.per_step)

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


class Reference:
    """The original in the losses: the same model with its adapter disabled and without dropout.

    Forget NLL is computed once. Retain log-probs at KLR's positions are too, where they fit in
    REFERENCE_CACHE_BYTES; otherwise each step runs one more forward without gradient.
    """

    def __init__(self, model: PeftModel, forget: list[Encoded], retain: list[Encoded],
                 collate_rows: Callable[[list[Encoded]], Batch], positions: str, wants_klr: bool, vocabulary: int):
        self.model, self.collate, self.positions = model, collate_rows, positions
        self.forget_nll = self._nll(forget)
        self.retain_nll = self._nll(retain)
        self.retain_rows = retain
        count = sum(int(self._positions(collate_rows([row])).sum()) for row in retain) if wants_klr else 0
        fits = count * vocabulary * 4 <= REFERENCE_CACHE_BYTES
        self.cached = self._retain_log_probs() if wants_klr and fits else None

    def retain_log_probs(self, indices: list[int]) -> torch.Tensor:
        """(N, V) log-probs at the positions of these retain rows, row after row."""
        if self.cached is not None:
            return torch.cat([self.cached[i] for i in indices])
        batch = self.collate([self.retain_rows[i] for i in indices])
        return self._logits(batch)[self._positions(batch)].float().log_softmax(-1)

    def _positions(self, batch: Batch) -> torch.Tensor:
        return losses.klr_positions(batch.labels, batch.attention_mask, self.positions)

    def _logits(self, batch: Batch) -> torch.Tensor:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self.model.disable_adapter():
                return self.model(**batch.inputs(), use_cache=False).logits
        finally:
            self.model.train(was_training)

    def _nll(self, rows: list[Encoded]) -> list[torch.Tensor]:
        """Per row the NLL of its labelled tokens, (answer tokens,)."""
        found = []
        for chunk in _chunks(rows):
            batch = self.collate(chunk)
            nll, mask = losses.token_nll(self._logits(batch), batch.labels), losses.labelled(batch.labels)
            found += list(nll[mask].split(mask.sum(1).tolist()))
        return found

    def _retain_log_probs(self) -> list[torch.Tensor]:
        found = []
        for chunk in _chunks(self.retain_rows):
            batch = self.collate(chunk)
            positions = self._positions(batch)
            log_probs = self._logits(batch)[positions].float().log_softmax(-1)
            found += list(log_probs.split(positions.sum(1).tolist()))
        return found


def _chunks(rows: list, size: int = 16):
    return (rows[i: i + size] for i in range(0, len(rows), size))


def unlearn(model: PeftModel, tokenizer, forget: Sequence[Item], retain: Sequence[Item], settings: Unlearning,
            encoding: Encoding, *, seed: int, accelerator: Accelerator, log: Callable[[Row], None],
            state_dir: Path | None = None, on_checkpoint: Callable[[int], None] = lambda step: None) -> int:
    """Train the adapter with NPO + GDR + KLR (arXiv 2503.21088); the number of optimizer steps.

    Logged per step, means over micro-batches: npo, gdr, klr and the same `_weighted`, loss, npo_brake, forget_nll,
    forget_nll_reference, retain_nll, retain_nll_reference (nats per answer token), epoch, and `optimise`'s columns.
    """
    forget_rows = [encode(tokenizer, item, encoding) for item in forget]
    retain_rows = [encode(tokenizer, item, encoding) for item in retain]
    length = encoding.max_length if settings.klr_positions == "padded" else 0

    def collate_rows(rows: list[Encoded]) -> Batch:
        return collate(rows, pad_id=tokenizer.pad_token_id, side=encoding.padding_side,
                       length=length).to(accelerator.device)

    reference = Reference(model, forget_rows, retain_rows, collate_rows, settings.klr_positions,
                          settings.klr_weight > 0, model.config.vocab_size)
    forward = accelerator.prepare_model(model)
    schedule = Schedule(len(forget_rows), len(retain_rows), settings, seed, accelerator.num_processes)

    def step_losses(step: int):
        micro_batches = schedule.micro_batches(step, accelerator.process_index)
        for part in [micro_batches] if settings.joined else [[m] for m in micro_batches]:
            loss, row = _part_loss(forward, part, forget_rows, retain_rows, reference, collate_rows, settings)
            yield loss, {"epoch": (step + 1) * schedule.per_step / schedule.forget, **row}

    torch.manual_seed(seed)
    every = schedule.steps / settings.checkpoints if settings.checkpoints else schedule.steps
    optimise(model, step_losses, steps=schedule.steps,
             lr_at=linear_schedule(settings.lr, schedule.warmup, schedule.steps), weight_decay=settings.weight_decay,
             clip=settings.clip, accelerator=accelerator, log=log, state_dir=state_dir, on_save=on_checkpoint,
             save_at=frozenset(math.ceil(every * k) for k in range(1, settings.checkpoints + 1)))
    return schedule.steps


def _part_loss(forward, micro_batches: list[list[tuple[int, int]]], forget_rows: list[Encoded],
               retain_rows: list[Encoded], reference: Reference, collate_rows, settings: Unlearning):
    """Mean total loss of some micro-batches from one forward of all their rows, and the row to log."""
    forget = [f for micro in micro_batches for f, _ in micro]
    retain = [r for micro in micro_batches for _, r in micro]
    batch = collate_rows([forget_rows[i] for i in forget] + [retain_rows[i] for i in retain])
    logits = forward(**batch.inputs(), use_cache=False).logits
    nll, mask = losses.token_nll(logits, batch.labels), losses.labelled(batch.labels)
    nll_reference = torch.zeros_like(nll)
    nll_reference[mask] = torch.cat([*(reference.forget_nll[i] for i in forget),
                                     *(reference.retain_nll[i] for i in retain)])
    positions = losses.klr_positions(batch.labels, batch.attention_mask, settings.klr_positions)
    log_probs_reference = reference.retain_log_probs(retain) if settings.klr_weight else None

    total, rows, seen = 0.0, [], 0
    first_forget, first_retain = 0, len(forget)
    for micro in micro_batches:
        f = slice(first_forget, first_forget + len(micro))
        r = slice(first_retain, first_retain + len(micro))
        first_forget, first_retain = f.stop, r.stop
        terms = {"npo": losses.npo(nll[f], nll_reference[f], mask[f], settings.beta, settings.npo_reduction),
                 "gdr": losses.gdr(nll[r], mask[r])}
        if log_probs_reference is not None:
            chosen = logits[r][positions[r]]
            terms["klr"] = losses.klr(chosen, log_probs_reference[seen: seen + len(chosen)])
            seen += len(chosen)
        weighted = {key: getattr(settings, f"{key}_weight") * value for key, value in terms.items()}
        loss = sum(weighted.values())
        total = total + loss
        with torch.no_grad():
            rows.append({
                **terms, **{f"{key}_weighted": value for key, value in weighted.items()}, "loss": loss,
                "npo_brake": losses.npo_brake(nll[f], nll_reference[f], mask[f], settings.beta, settings.npo_reduction),
                "forget_nll": losses.token_mean(nll[f], mask[f]),
                "forget_nll_reference": losses.token_mean(nll_reference[f], mask[f]),
                "retain_nll": losses.token_mean(nll[r], mask[r]),
                "retain_nll_reference": losses.token_mean(nll_reference[r], mask[r])})
    count = len(micro_batches)
    row = {key: float(sum(row[key].detach() for row in rows)) / count for key in rows[0]}
    return total / count, {**row, "tokens": batch.real_tokens}
