"""Answers drawn at random at a temperature, and the probability of each token of a given answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_core.batches import Progress, context_length, device_of, evaluating, silent
from unlearn_core.errors import InputError
from unlearn_core.evaluation.generation import Choose, Generation, generate


@dataclass(frozen=True)
class Token:
    """One token of an answer as text, and its log-probability in nats given all that stands before it."""

    text: str
    log_prob: float


def sample(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, samples: int,
           temperature: float, top_p: float = 1.0, seed: int = 0, max_new_tokens: int = 256, batch_size: int = 64,
           progress: Progress = silent) -> list[list[Generation]]:
    """`samples` continuations of each prompt, drawn from softmax(logits / temperature); the same seed draws the same.

    `top_p` below 1 keeps the smallest set of tokens with at least that probability.
    """
    if temperature <= 0 or not 0 < top_p <= 1 or samples < 1:
        raise InputError("sampling", got=f"temperature {temperature:g}, top_p {top_p:g}, {samples} samples",
                         expected="a temperature above 0, top_p above 0 and at most 1, at least one sample")
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    drawn = generate(model, tokenizer, repeated, max_new_tokens=max_new_tokens, batch_size=batch_size,
                     progress=progress, choose=sampler(temperature, top_p, seed, device_of(model)))
    return [drawn[start:start + samples] for start in range(0, len(drawn), samples)]


def sampler(temperature: float, top_p: float, seed: int, device: torch.device | str) -> Choose:
    """A function that draws a token for each row of next-token logits (rows, V)."""
    generator = torch.Generator(device).manual_seed(seed)

    def choose(logits: torch.Tensor) -> torch.Tensor:
        probabilities = (logits.float() / temperature).softmax(-1)
        if top_p < 1:
            ordered, order = probabilities.sort(-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= top_p  # enough without this token
            probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(beyond, 0.0))
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    return choose


def token_log_probs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str
                    ) -> list[Token]:
    """The tokens of an answer after its prompt, teacher-forced, as `likelihood.answer_nll` reads them.

    Their texts joined are the answer. Where a token merges prompt and answer, that token belongs to the prompt; the
    first token of all is predicted by nothing and left out. A text longer than the model's positions keeps its end.
    """
    text = prompt + answer
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    first = max(1, len(tokenizer(prompt)["input_ids"]) if prompt else 0)
    kept = ids[-(context_length(model) or len(ids)):]
    cut = len(ids) - len(kept)
    if len(ids) <= max(first, cut + 1):
        return []
    with evaluating(model):
        logits = model(input_ids=torch.tensor([kept], device=device_of(model)), use_cache=False).logits[0, :-1]
        log_probs = logits.float().log_softmax(-1).cpu()
    found, last = [], max(len(prompt), *ends[:max(first, cut + 1)])
    for place in range(max(first, cut + 1), len(ids)):
        end = max(ends[place], last)  # several tokens may share one character
        found.append(Token(text[last:end], log_probs[place - cut - 1, ids[place]].item()))
        last = end
    return found
