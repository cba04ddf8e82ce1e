"""Greedy answers as the official script makes them, in batches: raw prompt, at most 256 new tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core.batches import (
    Progress,
    context_length,
    device_of,
    evaluating,
    in_batches,
    left_padded,
    silent,
)
from unlearn_core.evaluation.cache import new_cache

Choose = Callable[[torch.Tensor], torch.Tensor]  # next-token logits (rows, V) -> tokens (rows,)


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt. `new_tokens` leaves the end token out; `hit_limit`: it never came."""

    text: str
    new_tokens: int
    hit_limit: bool


def greedy(logits: torch.Tensor) -> torch.Tensor:
    """The likeliest token of each row."""
    return logits.argmax(-1)


def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *,
             max_new_tokens: int = 256, batch_size: int = 64, progress: Progress = silent,
             choose: Choose = greedy) -> list[Generation]:
    """One continuation per prompt, in the order of `prompts`; `choose` picks each next token.

    Greedy ones in fp32 are the same as generated one by one; in bf16 up to rounding, where left padding can flip a
    near tie. The prompt is tokenised with the tokenizer's defaults, without template. An empty prompt starts from the
    begin-of-text token (or the end token where there is none). A prompt longer than the model's positions keeps its
    last tokens, and an answer ends where the positions end. Source: `evaluate_generations.py`.
    """
    if not prompts:
        return []
    ends = end_tokens(model, tokenizer)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    limit = context_length(model)
    encoded = [(ids or [start])[-(limit - 1):] if limit else ids or [start] for ids in tokenizer(prompts).input_ids]

    def work(batch: list[int]) -> list[Generation]:
        rows = [encoded[index] for index in batch]
        room = [min(max_new_tokens, limit - len(row)) if limit else max_new_tokens for row in rows]
        written = _write(model, rows, room, ends, tokenizer.eos_token_id, choose)
        return [_read(tokenizer, tokens, ends) for tokens in written]

    with evaluating(model):
        return in_batches(work, [len(ids) for ids in encoded], batch_size,
                          told=lambda done: progress(done, len(prompts), "answers"))


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end an answer: those of the model's generation settings and the tokenizer's."""
    settings = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = settings if isinstance(settings, (list, tuple)) else [settings]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}


def _write(model: PreTrainedModel, prompts: list[list[int]], room: list[int], ends: set[int], pad: int | None,
           choose: Choose) -> list[list[int]]:
    """New tokens per prompt, up to `room`, the end token included; a finished row leaves the batch and its cache."""
    written: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    inputs, cache = left_padded(prompts, pad or 0, device_of(model)), new_cache(model)
    while True:
        result = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        tokens = choose(result.logits[:, -1])
        for row, token in zip(alive, tokens.tolist(), strict=True):
            written[row].append(token)
        going = [place for place, row in enumerate(alive)
                 if written[row][-1] not in ends and len(written[row]) < room[row]]
        if not going:
            return written
        mask = inputs["attention_mask"]
        inputs = {"input_ids": tokens[:, None], "attention_mask": torch.cat([mask, mask.new_ones(len(alive), 1)], 1),
                  "position_ids": inputs["position_ids"][:, -1:] + 1}
        if len(going) < len(alive):
            keep = torch.tensor(going, device=tokens.device)
            cache.batch_select_indices(keep)
            inputs = {name: tensor[keep] for name, tensor in inputs.items()}
            alive = [alive[place] for place in going]


def _read(tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: set[int]) -> Generation:
    ended = tokens[-1] in ends
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    # The official clean-up ("word ." -> "word."); transformers 5 ignores the flag itself for BPE tokenizers.
    return Generation(tokenizer.clean_up_tokenization(text), len(tokens) - ended, not ended)
