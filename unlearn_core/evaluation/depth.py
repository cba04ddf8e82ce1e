"""How deep an answer sits: states of another model are put into the base, layer by layer, to see what that costs.

The unlearning depth score (UDS, arXiv 2605.24614). A state is what a decoder layer gives out. It is exchanged at the
positions that predict the answer, those whose next token is an answer token, and the base goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
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
from unlearn_core.data.items import Item
from unlearn_core.encoding import UNCUT, encode
from unlearn_core.errors import InputError
from unlearn_core.evaluation.likelihood import LOGITS_BUDGET

THRESHOLD = 0.05  # nats per token: a layer whose exchange for the reference's costs more encodes the answer
STATES_BUDGET = 2**28  # numbers that the states of one batch take: 1 GiB in fp32


def decoder_layers(model: PreTrainedModel) -> list[nn.Module] | None:
    """The model's decoder layers in order: its first list of as many modules as its configuration names; None where
    there is none."""
    count = getattr(model.config, "num_hidden_layers", None)
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    found = next(lists, None)
    return None if found is None else list(found)


def obstacle(base: PreTrainedModel, source: PreTrainedModel) -> str:
    """Why the states of `source` cannot be put into `base`; "" where they can."""
    if decoder_layers(base) is None or decoder_layers(source) is None:
        return "no list of decoder layers was found in the model"
    return "" if _shapes(base) == _shapes(source) else "the model has another shape than the base"


def _shapes(model: PreTrainedModel) -> list[torch.Size]:
    layers = [parameter.shape for layer in decoder_layers(model) for parameter in layer.parameters()]
    return [model.get_input_embeddings().weight.shape, *layers]


def drops(base: PreTrainedModel, source: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], *,
          batch_size: int = 64, progress: Progress = silent) -> list[list[float] | None]:
    """Per item and decoder layer s - s', in nats per token: s is the base's mean log p of the answer's tokens, s' the
    same when the layer's state is exchanged for that of `source`. None where no token is left, or a loss is not finite.

    An answer is read after its prompt, both tokenised as in training, without the end token; what is longer than the
    model's positions keeps its end. Batches and padding change nothing. `obstacle` says whether the two models fit.
    """
    layers = decoder_layers(base)
    rows, counts = _answers(tokenizer, items, context_length(base))
    scorable, found = [place for place, count in enumerate(counts) if count], [None] * len(items)
    width = base.get_input_embeddings().weight.shape[1]
    budget = min(LOGITS_BUDGET // base.config.vocab_size, STATES_BUDGET // (len(layers) * width))
    skipped = len(items) - len(scorable)

    def work(batch: list[int]) -> list[list[float]]:
        places = [scorable[number] for number in batch]
        return _batch(base, source, [rows[place] for place in places], [counts[place] for place in places]).tolist()

    with evaluating(base), evaluating(source):
        measured = in_batches(work, [len(rows[place]) for place in scorable], batch_size, budget,
                              told=lambda done: progress(skipped + done, len(items), "depth"))
    for place, values in zip(scorable, measured, strict=True):
        found[place] = values if all(map(math.isfinite, values)) else None
    return found


def _answers(tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], limit: int | None
             ) -> tuple[list[list[int]], list[int]]:
    """(token ids of prompt and answer, how many at their end are the answer's and have one before them) of each."""
    encoded = [encode(tokenizer, item, UNCUT) for item in items]
    rows = [row.ids[:-1][-limit:] if limit else row.ids[:-1] for row in encoded]
    counts = [min(len(row.ids) - 1 - row.prompt_tokens, len(ids) - 1) for row, ids in zip(encoded, rows, strict=True)]
    return rows, [max(0, count) for count in counts]


def _batch(base: PreTrainedModel, source: PreTrainedModel, rows: list[list[int]], counts: list[int]) -> torch.Tensor:
    """(rows, layers) what each exchange costs. Layers below the exchange are not computed again."""
    inputs, most = left_padded(rows, 0, device_of(base)), max(counts)
    labels, ends = inputs["input_ids"][:, -most:], torch.tensor(counts, device=device_of(base))[:, None]
    answer = torch.arange(most, device=device_of(base)) >= most - ends  # (rows, most)

    def mean_log_p(logits: torch.Tensor) -> torch.Tensor:
        nll = cross_entropy(logits[:, :-1].float().transpose(1, 2), labels, reduction="none")
        return -torch.where(answer, nll, 0.0).sum(1) / ends[:, 0]

    own, theirs = [], []
    before = mean_log_p(_forward(base, inputs, most, own))
    _forward(source, {name: tensor.to(device_of(source)) for name, tensor in inputs.items()}, most, theirs)
    costs = []
    for at, layer_output in enumerate(own):
        state = _state(layer_output).clone()
        state[:, -most - 1:-1][answer] = _state(theirs[at])[:, -most - 1:-1].to(state)[answer]
        given = (state, *layer_output[1:]) if isinstance(layer_output, tuple) else state
        with _giving(decoder_layers(base), [*own[:at], given]):
            costs.append(before - mean_log_p(base(**inputs, use_cache=False, logits_to_keep=most + 1).logits))
    return torch.stack(costs, 1)


def _forward(model: PreTrainedModel, inputs: dict[str, torch.Tensor], most: int, outputs: list) -> torch.Tensor:
    """Logits at the last `most` + 1 positions; what each decoder layer gave out is appended to `outputs`."""
    order: list[int] = []

    def keep(number: int, output: object) -> None:
        order.append(number)
        outputs.append(output)

    layers = decoder_layers(model)
    with ExitStack() as hooks:
        for number, layer in enumerate(layers):
            handle = layer.register_forward_hook(lambda _, __, output, number=number: keep(number, output))
            hooks.callback(handle.remove)
        logits = model(**inputs, use_cache=False, logits_to_keep=most + 1).logits
    if order != list(range(len(layers))):
        raise InputError("depth of forgetting", got=f"layers that ran in the order {order}",
                         expected="a model that runs its decoder layers once each, one after the other")
    return logits


@contextmanager
def _giving(layers: Sequence[nn.Module], outputs: Sequence) -> Iterator[None]:
    """The first layers give these outputs out, and compute nothing, inside."""
    replaced = layers[:len(outputs)]
    for layer, output in zip(replaced, outputs, strict=True):
        layer.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for layer in replaced:
            del layer.forward


def _state(output: torch.Tensor | tuple) -> torch.Tensor:
    """The hidden states (rows, positions, width) in what a layer gives out."""
    return output[0] if isinstance(output, tuple) else output


def depth_score(reference: Sequence[float], own: Sequence[float]) -> float | None:
    """UDS of one item from the drops of the reference (D1) and of the unlearned model (D2), per layer: the sum of
    D1 clip(D2 / D1, 0, 1) over that of D1, both over the layers with D1 above `THRESHOLD`; None where there is none.

    0: the answer is as intact inside as in the base; 1: erased as far as in a model that never saw it.
    """
    encoding = [(d1, d2) for d1, d2 in zip(reference, own, strict=True) if d1 > THRESHOLD]
    return sum(min(max(d2, 0.0), d1) for d1, d2 in encoding) / sum(d1 for d1, _ in encoding) if encoding else None
