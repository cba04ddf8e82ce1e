"""How large a model is, from its config and the headers of its weights, before anything is loaded. Torch-free."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from unlearn_core import hub
from unlearn_core.errors import InputError
from unlearn_core.pretrained import refuse_missing
from unlearn_core.settings import Base

ORGANISERS = "llmunlearningsemeval2025organization/"


@dataclass(frozen=True)
class Model:
    """Size of a decoder: `linear` is the sum of inputs + outputs over the linear layers that LoRA is put on.

    `published`: the model is not on this machine, and this is what is published of it.
    """

    vocabulary: int
    hidden: int
    layers: int
    mlp: int
    key_values: int  # width of the keys of one layer
    parameters: int
    linear: int
    published: bool = False

    @property
    def computing(self) -> int:
        """Parameters that each token is multiplied with: all but the embedding."""
        return self.parameters - self.vocabulary * self.hidden


def base_model(base: Base) -> Model | None:
    """The base as far as it is known without loading it; None for a hub id whose config is not on this machine, unless
    its size is in `PUBLISHED`.

    An InputError where a local folder is no model. A vocabulary learnt here may turn out smaller than asked for.
    """
    if base.source == "scratch":
        return _decoder(base.vocabulary, base.hidden_size, base.layers, base.mlp_size, base.hidden_size,
                        base.hidden_size, tied=False)
    folder = Path(base.model)
    if not folder.is_dir():
        refuse_missing(base.model)
        found = hub.cached_config(base.model)
        return PUBLISHED.get(base.model) if found is None else _of_config(found)
    model = _of_config(hub.config(base.model))
    weights = sorted(folder.glob("*.safetensors"))
    if model is None or not weights:
        return model
    return dataclasses.replace(model, parameters=sum(map(_count_parameters, weights)))


def _of_config(config: dict) -> Model | None:
    """Of a Llama-like config; None for one with other keys."""
    heads = config.get("num_attention_heads")
    wanted = (config.get("vocab_size"), config.get("hidden_size"), config.get("num_hidden_layers"),
              config.get("intermediate_size"), heads, config.get("num_key_value_heads") or heads)
    if not all(isinstance(value, int) and value > 0 for value in wanted):
        return None
    vocabulary, hidden, layers, mlp, heads, key_value_heads = wanted
    head = config.get("head_dim") if isinstance(config.get("head_dim"), int) else hidden // heads
    return _decoder(vocabulary, hidden, layers, mlp, heads * head, key_value_heads * head,
                    tied=bool(config.get("tie_word_embeddings")))


def _decoder(vocabulary: int, hidden: int, layers: int, mlp: int, queries: int, key_values: int, tied: bool,
             published: bool = False) -> Model:
    shapes = [(hidden, queries), (hidden, key_values), (hidden, key_values), (queries, hidden),
              (hidden, mlp), (hidden, mlp), (mlp, hidden)]
    embeddings = vocabulary * hidden * (1 if tied else 2)
    return Model(vocabulary, hidden, layers, mlp, key_values,
                 embeddings + layers * sum(i * o for i, o in shapes), layers * sum(i + o for i, o in shapes), published)


def _count_parameters(path: Path) -> int:
    """Numbers in a safetensors file, by its header."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}", got=f"no readable header ({error})", expected="weights as safetensors") from None


# OLMo-7B-0724 and OLMo-1B-0724 by the configs of allenai/OLMo-7B-0724-Instruct-hf and allenai/OLMo-1B-0724-hf, which
# the organisers of SemEval-2025 Task 4 trained on: norms without weights, no biases, head and embedding apart.
_OLMO_7B = _decoder(50304, 4096, 32, 11008, 4096, 4096, tied=False, published=True)
_OLMO_1B = _decoder(50304, 2048, 16, 8192, 2048, 2048, tied=False, published=True)
PUBLISHED = {f"{ORGANISERS}olmo-finetuned-semeval25-unlearning": _OLMO_7B,
             f"{ORGANISERS}olmo-1B-model-semeval25-unlearning": _OLMO_1B,
             "allenai/OLMo-7B-0724-Instruct-hf": _OLMO_7B, "allenai/OLMo-7B-0724-hf": _OLMO_7B,
             "allenai/OLMo-1B-0724-hf": _OLMO_1B}
