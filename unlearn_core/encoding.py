"""Items as tokens: truncation and padding, as the paper's released code does it.

Only `collate` loads torch, so that the dashboard encodes items by the same rule without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_core.data import Item
from unlearn_core.errors import InputError
from unlearn_core.settings import Encoding

if TYPE_CHECKING:
    import torch

UNCUT = Encoding(max_length=2**31, prompt_share=1.0)


@dataclass(frozen=True)
class Encoded:
    """One item as tokens: `ids` = prompt + answer + end; the first `prompt_tokens` carry no label."""

    ids: list[int]
    prompt_tokens: int
    truncated: bool  # whether tokens of the answer (or its end) were cut


@dataclass(frozen=True)
class Batch:
    """Padded rows, each (B, T) int64; `attention_mask` is 1 on real tokens."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(t.to(device) for t in (self.input_ids, self.attention_mask, self.position_ids)))

    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of a model's forward."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, "position_ids": self.position_ids}


def encode(tokenizer, item: Item, encoding: Encoding) -> Encoded:
    """Prompt with the tokenizer's own special tokens, answer without, no separator, end token appended.

    The prompt keeps its last `max_length * prompt_share` tokens; then the end of the whole is cut to
    `max_length` (released code of arXiv 2503.21088).
    """
    prompt = tokenizer(item.prompt)["input_ids"]
    if prompt and prompt[-1] == tokenizer.eos_token_id:  # a tokenizer that ends every text must not end the prompt
        prompt = prompt[:-1]
    prompt = prompt[max(0, len(prompt) - int(encoding.max_length * encoding.prompt_share)):]
    answer = tokenizer(item.answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    ids = (prompt + answer)[: encoding.max_length]
    return Encoded(ids, len(prompt), truncated=len(prompt) + len(answer) > encoding.max_length)


def encode_all(tokenizer, items: Sequence[Item], encoding: Encoding) -> list[Encoded]:
    """All items as tokens; one of whose answer nothing is left would teach nothing, so it is an InputError."""
    rows = [encode(tokenizer, item, encoding) for item in items]
    for item, row in zip(items, rows, strict=True):
        if len(row.ids) <= row.prompt_tokens:
            raise InputError(f"item {item.id}", got=f"a prompt of {row.prompt_tokens} tokens and no answer token left",
                             expected=f"an answer within encoding.max_length = {encoding.max_length}",
                             fix="raise max_length or lower encoding.prompt_share")
    return rows


def collate(rows: Sequence[Encoded], *, pad_id: int, side: str = "left", length: int = 0) -> Batch:
    """Pad rows to the longest of them, or to `length` where it is longer."""
    import torch

    width = max(length, *(len(row.ids) for row in rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        start = width - len(row.ids) if side == "left" else 0
        tokens = torch.tensor(row.ids)
        ids[number, start: start + len(tokens)] = tokens
        mask[number, start: start + len(tokens)] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Batch(ids, mask, positions)
