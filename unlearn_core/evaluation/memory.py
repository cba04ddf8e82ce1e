"""What a model still holds of each text when it is led through it token by token: memory, attack scores, depth.

One teacher-forced pass over the items and documents of forget, retain and holdout gives all of it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
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
from unlearn_core.data.dataset import one_text_each
from unlearn_core.data.items import Dataset, Item
from unlearn_core.encoding import UNCUT, encode
from unlearn_core.evaluation.likelihood import LOGITS_BUDGET, Losses
from unlearn_core.vocabulary import DOCUMENT

MIN_K = 0.2  # share of the tokens, the least likely ones, that Min-K% reads
MOST_DEPTHS = 12  # layers that the lens reads: each costs a pass through the head, in a small model half a forward pass
MEASURES = ("nll", "min_k", "min_k_plus", "zlib", "entropy", "exact_memorisation", "extraction_strength")


@dataclass(frozen=True)
class _Sequence:
    """Token ids of which the last `count` are scored, and the text that these are."""

    ids: list[int]
    count: int
    text: str


def memory_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset, *, batch_size: int = 64,
                progress: Progress = silent, texts: Callable[[list[Item]], list[Item]] = one_text_each,
                losses: Losses | None = None) -> list[dict]:
    """One row per answer and per whole document of each split, columns as in `store.Run.memory`.

    An answer is read after its prompt, both tokenised as in training, without the end token; a document is the text
    that `texts` takes of its items: the first continuation with its prompt, as the official attack reads it. What the
    model holds of the answers of forget and, as a control, of holdout at each depth (`lens`, at the layers of
    `depths`) is None for other texts, and for a model whose last norm is not found. `losses` is given what was read.
    """
    rows, sequences = [], []
    for split in ("forget", "retain", "holdout"):
        items = getattr(dataset, split)
        for item in items:
            rows.append({"id": item.id, "document": item.document, "split": split, "task": item.task,
                         "kind": item.kind})
            sequences.append(_answer(tokenizer, item))
        for item in texts(items):
            ids = tokenizer(item.text).input_ids
            rows.append({"id": item.document, "document": item.document, "split": split, "task": item.task,
                         "kind": DOCUMENT})
            sequences.append(_Sequence(ids, len(ids), item.text))
    deep = [row["split"] != "retain" and row["kind"] != DOCUMENT for row in rows]
    found: list[dict] = [{}] * len(rows)
    for wanted in (True, False):
        places = [place for place, with_lens in enumerate(deep) if with_lens is wanted]
        done = sum(map(bool, found))
        measured = teacher_forced(model, [sequences[place] for place in places], batch_size, lens=wanted, progress=(
            lambda n, _, label, done=done: progress(done + n, len(rows), label)))
        for place, measures in zip(places, measured, strict=True):
            found[place] = measures
    if losses is not None:
        losses |= {(tuple(one.ids), max(1, len(one.ids) - one.count)): (read["nll"], read["tokens"])
                   for one, read in zip(sequences, found, strict=True) if read["nll"] is not None}
    return [row | measures for row, measures in zip(rows, found, strict=True)]


def item_memory(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], *,
                batch_size: int = 64) -> list[dict]:
    """`teacher_forced` of each item's answer, and `probability`, exp of the mean log p; None where it has no token."""
    found = teacher_forced(model, [_answer(tokenizer, item) for item in items], batch_size)
    return [row | {"probability": None if row["nll"] is None else math.exp(-row["nll"])} for row in found]


def _answer(tokenizer: PreTrainedTokenizerBase, item: Item) -> _Sequence:
    encoded = encode(tokenizer, item, UNCUT)
    return _Sequence(encoded.ids[:-1], len(encoded.ids) - 1 - encoded.prompt_tokens, item.answer)


def teacher_forced(model: PreTrainedModel, sequences: Sequence[_Sequence], batch_size: int, *, lens: bool = False,
                   progress: Progress = silent) -> list[dict]:
    """`tokens`, `MEASURES` and `lens` of each sequence; None where no token is left to score or a loss is not finite.

    The first token of all is predicted by nothing; a sequence longer than the model's positions keeps its end.
    """
    limit = context_length(model) or max((len(one.ids) for one in sequences), default=0)
    kept = [one.ids[-limit:] for one in sequences]
    counts = [max(0, min(one.count, len(ids) - 1)) for one, ids in zip(sequences, kept, strict=True)]
    found = [{"tokens": count, **dict.fromkeys(MEASURES), "lens": None} for count in counts]
    scorable = [place for place, count in enumerate(counts) if count]
    norm = last_norm(model) if lens else None

    def work(batch: list[int]) -> list[dict]:
        places = [scorable[number] for number in batch]
        return _read(model, norm, [kept[i] for i in places], [counts[i] for i in places],
                     [sequences[i].text for i in places])

    with evaluating(model):
        measured = in_batches(work, [len(kept[i]) for i in scorable], batch_size,
                              LOGITS_BUDGET // model.config.vocab_size,
                              told=lambda done: progress(done, len(sequences), "memory"))
    for place, measures in zip(scorable, measured, strict=True):
        found[place] |= measures
    return found


def _read(model: PreTrainedModel, norm: nn.Module | None, rows: list[list[int]], counts: list[int],
          texts: list[str]) -> list[dict]:
    """`MEASURES` of the last `counts` tokens of each row, and `lens` where the last norm is given."""
    inputs, most = left_padded(rows, 0, device_of(model)), max(counts)
    result = model(**inputs, use_cache=False, logits_to_keep=most + 1, output_hidden_states=norm is not None)
    found = [_measures(result.logits[row, -count - 1:-1].float(), inputs["input_ids"][row, -count:], text)
             for row, (count, text) in enumerate(zip(counts, texts, strict=True))]
    if norm is not None:
        layers = len(result.hidden_states) - 1
        read = _lens(model, norm, result.hidden_states, result.logits, inputs["input_ids"], counts)
        for row, own in enumerate(read.split(counts, dim=1)):
            means = dict(zip(depths(layers), own.mean(1).tolist(), strict=True))
            if all(map(math.isfinite, means.values())):
                found[row]["lens"] = [means.get(layer) for layer in range(layers + 1)]
    return found


def _measures(logits: torch.Tensor, labels: torch.Tensor, text: str) -> dict:
    """`MEASURES` of one text from its logits (tokens, V) and labels (tokens,)."""
    log_p = logits.log_softmax(-1)
    own = log_p.gather(-1, labels[:, None])[:, 0]
    p = log_p.exp()
    mean = (p * log_p).sum(-1)  # of log p under the model itself: minus its entropy
    spread = (p * (log_p - mean[:, None]).square()).sum(-1).sqrt()
    # A distribution without spread says nothing of its own token: z = 0.
    z = torch.where(spread > 1e-6, (own - mean) / spread.clamp(min=1e-6), torch.zeros_like(own))
    least = max(1, int(MIN_K * len(own)))
    right = logits.argmax(-1) == labels
    wrong = (~right).nonzero()[:, 0]
    nll = -own.mean().item()
    found = {
        "nll": nll, "min_k": -own.sort().values[:least].mean().item(),
        "min_k_plus": -z.sort().values[:least].mean().item(),
        "zlib": nll * len(own) / len(zlib.compress(text.encode())), "entropy": -mean.mean().item(),
        "exact_memorisation": right.float().mean().item(),
        # k = the first position from which all are right; k = T, where the last one is wrong, gives 0.
        "extraction_strength": 1 - (wrong[-1].item() + 1 if len(wrong) else 0) / len(own)}
    return found if all(map(math.isfinite, found.values())) else dict.fromkeys(MEASURES)


# ---- logit lens ----------------------------------------------------------------------------------------------

def last_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm between the last layer and the head; None where the model has none by a usual name."""
    found = [child for name, child in model.base_model.named_children() if "norm" in name.lower() or name == "ln_f"]
    return found[-1] if found else None


def depths(layers: int) -> list[int]:
    """The layers after which the lens reads a model of so many: all of a shallow one, else evenly spaced ones from 0,
    the embeddings, and always the last."""
    return sorted({*range(0, layers, math.ceil(layers / MOST_DEPTHS)), layers})


def _lens(model: PreTrainedModel, norm: nn.Module, states: tuple[torch.Tensor, ...], logits: torch.Tensor,
          ids: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """(depths, tokens) log p of the last `counts` tokens of each row, row after row, when the state after each layer
    of `depths` is decoded by the head.

    The state after the last layer has passed the norm already (transformers' convention), and its logits are known.
    """
    most, head = max(counts), model.get_output_embeddings()
    scored = torch.arange(most, device=ids.device) >= most - torch.tensor(counts, device=ids.device)[:, None]
    labels = ids[:, -most:][scored][:, None]

    def of(decoded: torch.Tensor) -> torch.Tensor:
        return decoded.float().log_softmax(-1).gather(-1, labels)[:, 0]

    *inner, _ = depths(len(states) - 1)
    return torch.stack([*(of(head(norm(states[layer][:, -most - 1:-1][scored]))) for layer in inner),
                        of(logits[:, :-1][scored])])
