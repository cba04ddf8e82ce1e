"""A part of what was forgotten, learned again: which documents, at which steps one looks, and the training itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from unlearn_core.data import Item
from unlearn_core.encoding import encode_all
from unlearn_core.settings import Encoding, Unlearning
from unlearn_core.training.forward import Reader
from unlearn_core.training.optimise import optimise
from unlearn_core.training.schedule import Schedule
from unlearn_core.trials import halves


def parts(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(items to relearn, items only to ask about): of each task's n documents round(share n) are relearned, at least 1
    and at most n - 1. All documents of a person count as one, so that nobody is on both sides."""
    units = halves.unit_names(items)
    tasks = {units[item.document]: item.task for item in items}
    learned: set[str] = set()
    for task in sorted(set(tasks.values())):
        own = sorted(unit for unit, of in tasks.items() if of == task)
        random.Random(f"{seed} {task}").shuffle(own)
        learned.update(own[:min(max(1, int(share * len(own) + 0.5)), len(own) - 1)])
    sides = {side: [item for item in items if (units[item.document] in learned) is side] for side in (True, False)}
    return sides[True], sides[False]


def marks(steps: int) -> list[int]:
    """Steps at which relearning is measured: 0, 1, 2, 5, 10, 20, 50, 100 ... and the last."""
    grid = (digit * 10**power for power in range(len(str(steps))) for digit in (1, 2, 5))
    return [0, *(step for step in grid if step < steps), steps]


def relearn(model: PeftModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], encoding: Encoding, *,
            steps: int, lr: float, batch: int, seed: int, accelerator: Accelerator, after: Callable[[int], None]
            ) -> None:
    """Train the adapter by cross-entropy on every token of the items, `batch` of them a step; then `after(step)`.

    The learning rate is constant, so that fewer steps are the beginning of more.
    """
    rows = encode_all(tokenizer, items, encoding)
    reader = Reader(model, pad_id=tokenizer.pad_token_id, side="right")
    schedule = Schedule(len(rows), 1, Unlearning(batch_size=batch, gradient_accumulation=1), seed)

    def step_losses(step: int):
        chosen = [rows[place] for micro in schedule.micro_batches(step) for place in micro.forget]
        loss = reader.text_nll(model, chosen)
        yield loss, {"loss": loss.detach(), "tokens": sum(len(row.ids) for row in chosen)}

    torch.manual_seed(seed)
    optimise(model, step_losses, steps=steps, lr_at=lambda step: lr, weight_decay=0.0, clip=1.0,
             accelerator=accelerator, log=lambda row: after(row["step"]))
