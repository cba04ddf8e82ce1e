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

from unlearn_core.data import Item
from unlearn_core.data.substitutes import plausible, refusals
from unlearn_core.encoding import Encoded, encode_all
from unlearn_core.settings import Base, Encoding, Unlearning
from unlearn_core.training import losses
from unlearn_core.training.forward import NOTHING, Read, Reader
from unlearn_core.training.fused import fused
from unlearn_core.training.optimise import Row, cosine_schedule, linear_schedule, optimise
from unlearn_core.training.reference import Distributions, Reference
from unlearn_core.training.schedule import MicroBatch, Schedule


def memorise(model, tokenizer, items: Sequence[Item], base: Base, encoding: Encoding, *, seed: int,
             accelerator: Accelerator, log: Callable[[Row], None], state_dir: Path | None = None) -> None:
    """Train all weights by cross-entropy on every token of the items until they are memorised.

    Batches hold items of similar length; the order follows from the seed and the epoch alone.
    """
    rows = encode_all(tokenizer, items, encoding)
    per_epoch = math.ceil(len(rows) / base.batch_size)
    steps = base.steps(len(rows))
    order: dict[int, list[list[int]]] = {}
    reader = Reader(model, pad_id=tokenizer.pad_token_id, side="right")
    forward = _prepared(model, accelerator, base.compiled)

    def step_losses(step: int):
        epoch, number = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = _length_grouped([len(row.ids) for row in rows], base.batch_size, seed + epoch)
        chosen = [rows[i] for i in order[epoch][number]]
        loss = reader.text_nll(forward, chosen)
        # Every process reads the same batch, so only one counts it.
        tokens = _count_tokens(chosen) if accelerator.is_main_process else 0
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


def _prepared(model, accelerator: Accelerator, compiled: bool):
    """The model as it is called in training: wrapped for several processes, compiled where that is asked for."""
    forward = accelerator.prepare_model(model)
    return torch.compile(forward, dynamic=True) if compiled else forward


def _count_tokens(rows: Sequence[Encoded]) -> int:
    return sum(len(row.ids) for row in rows)


@dataclass(frozen=True)
class Texts:
    """Items as tokens. `refusal` and `positive` are forget's prompts with other answers, where a term reads them."""

    forget: list[Encoded]
    retain: list[Encoded]
    refusal: list[Encoded]
    positive: list[Encoded]

    @classmethod
    def encoded(cls, tokenizer, forget: Sequence[Item], retain: Sequence[Item], settings: Unlearning,
                encoding: Encoding, seed: int) -> Texts:
        sides = (forget, retain, refusals(forget, seed) if settings.refusal_weight else [],
                 plausible(forget, retain, seed) if settings.positive_weight else [])
        return cls(*(encode_all(tokenizer, items, encoding) for items in sides))


def unlearn(model: PeftModel, tokenizer, forget: Sequence[Item], retain: Sequence[Item], settings: Unlearning,
            encoding: Encoding, *, seed: int, accelerator: Accelerator, log: Callable[[Row], None],
            state_dir: Path | None = None, on_checkpoint: Callable[[int], None] = lambda step: None) -> int:
    """Train the adapter with NPO + GDR + KLR (arXiv 2503.21088), or other terms; the number of optimizer steps.

    Logged per step, means over micro-batches: npo, gdr, further terms that have a weight and the same `_weighted`,
    loss, npo_brake, forget_nll, forget_nll_reference, retain_nll, retain_nll_reference (nats per answer token), epoch,
    and `optimise`'s columns.
    """
    texts = Texts.encoded(tokenizer, forget, retain, settings, encoding, seed)
    reader = Reader(model, pad_id=tokenizer.pad_token_id, side=encoding.padding_side, packed=settings.packed,
                    width=encoding.max_length if settings.klr_positions == "padded" else 0)
    reference = Reference(model, texts.forget, texts.retain, reader, settings, state_dir.parent if state_dir else None)
    forward = _prepared(model, accelerator, settings.compiled)
    schedule = Schedule(len(forget), len(retain), settings, seed, accelerator.num_processes)

    def step_losses(step: int):
        micro_batches = schedule.micro_batches(step, accelerator.process_index)
        for part in [micro_batches] if settings.joined else [[m] for m in micro_batches]:
            loss, row = part_loss(forward, part, texts, reference, settings)
            yield loss, {"epoch": (step + 1) * schedule.per_step / schedule.forget, **row}

    torch.manual_seed(seed)
    kept = settings.checkpoints
    with fused(model):
        optimise(model, step_losses, steps=schedule.steps,
                 lr_at=linear_schedule(settings.lr, schedule.warmup, schedule.steps), clip=settings.clip,
                 weight_decay=settings.weight_decay, accelerator=accelerator, log=log, state_dir=state_dir,
                 on_save=on_checkpoint,
                 save_at=frozenset(-(-schedule.steps * k // kept) for k in range(1, kept + 1)))  # rounded up
    accelerator.free_memory()  # it holds on to every model that it prepared
    return schedule.steps


def part_loss(forward, micro_batches: list[MicroBatch], texts: Texts, reference: Reference, settings: Unlearning):
    """Mean total loss of some micro-batches, all their rows read together, and the row to log.

    `forward` is the model as it is called, see `_prepared`; the gradient is that of the micro-batches one by one.
    """
    forget = [f for micro in micro_batches for f in micro.forget]
    retain = [r for micro in micro_batches for r in micro.retain]
    sides = {"forget": [texts.forget[i] for i in forget], "retain": [texts.retain[i] for i in retain],
             "refusal": [texts.refusal[i] for i in forget] if texts.refusal else [],
             "positive": [texts.positive[i] for i in forget] if texts.positive else []}
    wanted = {"forget": "answer" if settings.uniform_weight else NOTHING, "retain": reference.wanted}
    rows = [row for side in sides.values() for row in side]
    reads = iter(reference.reader.read(forward, rows, [wanted.get(name, NOTHING) for name in sides
                                                       for _ in sides[name]]))
    read = {name: [next(reads) for _ in side] for name, side in sides.items()}
    original = reference.distributions(retain) if settings.klr_weight else []

    total, logged, f, r = 0.0, [], 0, 0
    for micro in micro_batches:
        own_f, own_r = slice(f, f + len(micro.forget)), slice(r, r + len(micro.retain))
        f, r = own_f.stop, own_r.stop
        own = {name: found[own_r if name == "retain" else own_f] for name, found in read.items()}
        loss, row = _micro_loss(micro, own, original[own_r], reference, settings)
        total = total + loss
        logged.append(row)
    count = len(micro_batches)
    means = {key: float(sum(row[key].detach() for row in logged)) / count for key in logged[0]}
    return total / count, {**means, "tokens": _count_tokens(rows)}


def _micro_loss(micro: MicroBatch, read: dict[str, list[Read]], original: list[Distributions], reference: Reference,
                settings: Unlearning):
    """Total loss of one micro-batch, and the row to log. A term other than NPO and GDR is computed if it has a
    weight."""
    nll_f, mask_f = _padded([one.nll for one in read["forget"]])
    nll_r, mask_r = _padded([one.nll for one in read["retain"]])
    reference_f, _ = _padded([reference.forget_nll[i] for i in micro.forget])
    reference_r, _ = _padded([reference.retain_nll[i] for i in micro.retain])

    def answered(side: str) -> torch.Tensor:
        return torch.cat([one.nll for one in read[side]]).mean()

    make = {
        "npo": lambda: losses.npo(nll_f, reference_f, mask_f, settings.beta, settings.npo_reduction),
        "gdr": lambda: losses.gdr(nll_r, mask_r),
        "klr": lambda: _klr(read["retain"], original),
        "ga": lambda: losses.gradient_ascent(nll_f, mask_f),
        "simnpo": lambda: losses.simnpo(nll_f, mask_f, settings.simnpo_beta),
        "uniform": lambda: losses.uniform(torch.cat([one.log_probs for one in read["forget"]])),
        "refusal": lambda: answered("refusal"),
        "positive": lambda: answered("positive"),
    }
    weights = settings.weights
    terms = {key: term() for key, term in make.items() if weights[key] or key in ("npo", "gdr")}
    weighted = {key: weights[key] * value for key, value in terms.items()}
    loss = sum(weighted.values())
    with torch.no_grad():
        return loss, {
            **terms, **{f"{key}_weighted": value for key, value in weighted.items()}, "loss": loss,
            "npo_brake": losses.npo_brake(nll_f, reference_f, mask_f, settings.beta, settings.npo_reduction),
            "forget_nll": losses.token_mean(nll_f, mask_f),
            "forget_nll_reference": losses.token_mean(reference_f, mask_f),
            "retain_nll": losses.token_mean(nll_r, mask_r),
            "retain_nll_reference": losses.token_mean(reference_r, mask_r)}


def _klr(retain: list[Read], original: list[Distributions]) -> torch.Tensor:
    """KLR of a micro-batch, row by row, since joining their distributions would copy them."""
    each = [losses.klr(read.log_probs, one.log_probs) if one.tokens is None
            else losses.klr_top_k(read.log_probs, one.log_probs, one.tokens)
            for read, one in zip(retain, original, strict=True)]
    counts = [len(read.log_probs) for read in retain]
    return sum(value * count for value, count in zip(each, counts, strict=True)) / max(sum(counts), 1)


def _padded(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of different lengths as (B, T) with zeros behind, and the (B, T) mask of what is real."""
    mask = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)
    return pad_sequence(list(rows), batch_first=True), mask
