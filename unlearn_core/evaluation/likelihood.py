"""Mean token NLL (nats) of whole documents and of answers given their prompt, in batches."""

from __future__ import annotations

import math
from itertools import chain

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
from unlearn_core.evaluation.cache import forkable_cache

# Logits of one forward: 1 GiB in fp32. Only one row of them at a time is turned into fp32 log-probabilities.
LOGITS_BUDGET = 2**28

SHORTEST = 0.9  # of the longest ending's tokens in a batch: padding costs as often as a prompt has endings

# Mean NLL in nats per token (None where no token is left, or it is not finite), scored tokens.
Scored = tuple[float | None, int]
# What was read before, by token ids and the index of the first scored token.
Losses = dict[tuple[tuple[int, ...], int], Scored]


def document_nll(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], *,
                 batch_size: int = 64, progress: Progress = silent, known: Losses | None = None) -> list[Scored]:
    """(nll, tokens) of each whole text: all its tokens but the first, which nothing predicts (official attack)."""
    if not texts:
        return []
    return sequence_nll(model, [(ids, 1) for ids in tokenizer(texts).input_ids], batch_size, progress, "attack", known)


def answer_nll(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], *,
               batch_size: int = 64, progress: Progress = silent, known: Losses | None = None) -> list[Scored]:
    """(nll, tokens) of each answer after its prompt, as the official script: the text prompt + answer, no separator.

    As many tokens are masked as the prompt alone has, so a token that merges across the boundary shifts it.
    """
    if not pairs:
        return []
    prompts = tokenizer([prompt for prompt, _ in pairs]).input_ids
    whole = tokenizer([prompt + answer for prompt, answer in pairs]).input_ids
    sequences = [(ids, len(prompt)) for ids, prompt in zip(whole, prompts, strict=True)]
    return sequence_nll(model, sequences, batch_size, progress, "likelihood", known)


def sequence_nll(model: PreTrainedModel, sequences: list[tuple[list[int], int]], batch_size: int = 64,
                 progress: Progress = silent, label: str = "likelihood", known: Losses | None = None
                 ) -> list[Scored]:
    """(nll, tokens) of each (token ids, index of the first scored token); batching and padding change nothing.

    What is `known` of this model is not read again.

    The first token of all is never scored. A sequence longer than the model's positions keeps its last tokens.
    A loss that is not a finite number, as of a model whose training diverged, is None beside its count of tokens.
    """
    limit = context_length(model) or max((len(ids) for ids, _ in sequences), default=0)
    kept = [ids[-limit:] for ids, _ in sequences]
    counts = [max(0, min(len(ids) - first, len(tail) - 1)) for (ids, first), tail in zip(sequences, kept, strict=True)]
    found: list[Scored] = [(known or {}).get((tuple(ids), first), (None, 0)) for ids, first in sequences]
    scorable = [index for index, count in enumerate(counts) if count and not found[index][1]]
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


def endings_nll(model: PreTrainedModel, prompts: list[list[int]], endings: list[list[list[int]]],
                batch_size: int = 64, progress: Progress = silent, label: str = "likelihood"
                ) -> list[list[float | None]]:
    """Mean NLL in nats per token of each ending after its prompt, a list for each prompt; None where it is not finite.

    Prompts and endings are token ids, each prompt with as many endings; the numbers are those of `sequence_nll`.

    A prompt is read once for all of its endings: what the model keeps of it is repeated. Where the model's layers do
    not attend to everything, or a prompt is too short or too long for that, each ending is read with its prompt.
    """
    if not prompts:
        return []
    count, most = len(endings[0]), [max(map(len, own)) for own in endings]
    shortest, longest = min(map(len, prompts)), max(map(len, prompts)) + max(most)
    empty = not all(map(len, chain.from_iterable(endings)))
    if empty or shortest < 2 or longest > (context_length(model) or longest) or forkable_cache(model) is None:
        rows = [(prompt + ending, len(prompt)) for prompt, own in zip(prompts, endings, strict=True) for ending in own]
        losses = [loss for loss, _ in sequence_nll(model, rows, batch_size, progress, label)]
        return [losses[start:start + count] for start in range(0, len(losses), count)]

    def work(batch: list[int]) -> list[list[float | None]]:
        return _forked(model, [prompts[i] for i in batch], [endings[i] for i in batch])

    with evaluating(model):  # the logits of a batch are those of its endings, of which there are more than of prompts
        return in_batches(work, [count * ending for ending in most], max(1, batch_size // count),
                          LOGITS_BUDGET // model.config.vocab_size, SHORTEST,
                          told=lambda done: progress(done, len(prompts), label))


def _forked(model: PreTrainedModel, prompts: list[list[int]], endings: list[list[list[int]]]
            ) -> list[list[float | None]]:
    """`endings_nll` of a batch: one forward over prompts without their last tokens, one over these with endings."""
    count, cache = len(endings[0]), forkable_cache(model)
    begun = left_padded([prompt[:-1] for prompt in prompts], 0, device_of(model))
    model(**begun, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(count)
    flat = [ending for own in endings for ending in own]
    inputs = left_padded([prompt[-1:] + ending[:-1] for prompt, own in zip(prompts, endings, strict=True)
                          for ending in own], 0, device_of(model))
    before = begun["attention_mask"].repeat_interleave(count, dim=0)
    inputs["position_ids"] += before.sum(1, keepdim=True)
    inputs["attention_mask"] = torch.cat([before, inputs["attention_mask"]], 1)
    logits = model(**inputs, past_key_values=cache, use_cache=True).logits
    losses = torch.stack([cross_entropy(logits[row, -len(ending):].float(), torch.tensor(ending, device=logits.device))
                          for row, ending in enumerate(flat)]).tolist()
    known = [loss if math.isfinite(loss) else None for loss in losses]
    return [known[start:start + count] for start in range(0, len(known), count)]


def _mean_nll(model: PreTrainedModel, rows: list[list[int]], counts: list[int]) -> list[float]:
    """Mean NLL of the last `counts[i]` tokens of each row; padded on the left, so their logits are the last ones."""
    inputs = left_padded(rows, 0, device_of(model))
    logits = model(**inputs, use_cache=False, logits_to_keep=max(counts) + 1).logits
    return torch.stack([
        cross_entropy(logits[row, -count - 1:-1].float(), inputs["input_ids"][row, -count:])
        for row, count in enumerate(counts)]).tolist()
