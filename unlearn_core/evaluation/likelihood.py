"""Mean token NLL (nats) of whole documents and of answers given their prompt, in batches."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cross_entropy
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

# Logits of one forward: 1 GiB in fp32. Only one row of them at a time is turned into fp32 log-probabilities.
LOGITS_BUDGET = 2**28

# Mean NLL in nats per token (None where no token is left, or it is not finite), scored tokens.
Scored = tuple[float | None, int]


def document_nll(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], *,
                 batch_size: int = 64, progress: Progress = silent) -> list[Scored]:
    """(nll, tokens) of each whole text: all its tokens but the first, which nothing predicts (official attack)."""
    if not texts:
        return []
    return sequence_nll(model, [(ids, 1) for ids in tokenizer(texts).input_ids], batch_size, progress, "attack")


def answer_nll(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], *,
               batch_size: int = 64, progress: Progress = silent) -> list[Scored]:
    """(nll, tokens) of each answer after its prompt, as the official script: the text prompt + answer, no separator.

    As many tokens are masked as the prompt alone has, so a token that merges across the boundary shifts it.
    """
    if not pairs:
        return []
    prompts = tokenizer([prompt for prompt, _ in pairs]).input_ids
    whole = tokenizer([prompt + answer for prompt, answer in pairs]).input_ids
    sequences = [(ids, len(prompt)) for ids, prompt in zip(whole, prompts, strict=True)]
    return sequence_nll(model, sequences, batch_size, progress, "likelihood")


def sequence_nll(model: PreTrainedModel, sequences: list[tuple[list[int], int]], batch_size: int = 64,
                 progress: Progress = silent, label: str = "likelihood") -> list[Scored]:
    """(nll, tokens) of each (token ids, index of the first scored token); batching and padding change nothing.

    The first token of all is never scored. A sequence longer than the model's positions keeps its last tokens.
    A loss that is not a finite number, as of a model whose training diverged, is None beside its count of tokens.
    """
    limit = context_length(model) or max((len(ids) for ids, _ in sequences), default=0)
    kept = [ids[-limit:] for ids, _ in sequences]
    counts = [max(0, min(len(ids) - first, len(tail) - 1)) for (ids, first), tail in zip(sequences, kept, strict=True)]
    scorable = [index for index, count in enumerate(counts) if count]
    found: list[Scored] = [(None, 0)] * len(sequences)
    skipped = len(sequences) - len(scorable)

    def work(batch: list[int]) -> list[float]:
        indices = [scorable[place] for place in batch]
        return _mean_nll(model, [kept[i] for i in indices], [counts[i] for i in indices])

    with evaluating(model):
        losses = in_batches(work, [len(kept[i]) for i in scorable], batch_size,
                            LOGITS_BUDGET // model.config.vocab_size,
                            told=lambda done: progress(skipped + done, len(sequences), label))
    for index, loss in zip(scorable, losses, strict=True):
        found[index] = (loss if math.isfinite(loss) else None, counts[index])
    return found


def _mean_nll(model: PreTrainedModel, rows: list[list[int]], counts: list[int]) -> list[float]:
    """Mean NLL of the last `counts[i]` tokens of each row; padded on the left, so their logits are the last ones."""
    inputs = left_padded(rows, 0, device_of(model))
    logits = model(**inputs, use_cache=False, logits_to_keep=max(counts) + 1).logits
    return torch.stack([
        cross_entropy(logits[row, -count - 1:-1].float(), inputs["input_ids"][row, -count:])
        for row, count in enumerate(counts)]).tolist()
