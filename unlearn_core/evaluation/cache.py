"""Key-value caches: one with room to grow, so that a token costs its own length, one that many rows begin with, and one
whose rows fork."""

from __future__ import annotations

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from unlearn_core.batches import device_of

RESERVED = 64  # positions allocated ahead


class ReservingLayer(DynamicLayer):
    """Keys and values as views of larger buffers; Hugging Face's own layer concatenates at every token."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
               ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new positions; returns all keys and values, each (rows, heads, positions, head size)."""
        past = self.get_seq_length() if self.is_initialized else 0
        length = past + key_states.shape[-2]
        if not past or self._buffers[0].shape[-2] < length:
            grown = [t.new_empty(*t.shape[:-2], length + RESERVED, t.shape[-1]) for t in (key_states, value_states)]
            if past:
                grown[0][..., :past, :], grown[1][..., :past, :] = self.keys, self.values
            self._buffers = grown
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self._buffers[0][..., past:length, :] = key_states
        self._buffers[1][..., past:length, :] = value_states
        self._show(length)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self._show(self.keys.shape[-2])

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[..., :length, :] for buffer in self._buffers)


class SharedLayer(DynamicLayer):
    """Keys and values of one text that many rows begin with: read by all of them, added to by none."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
               ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the first positions, those of the text; returns all keys and values, as `ReservingLayer.update`."""
        if not self.is_initialized:
            return super().update(key_states, value_states)
        return (torch.cat([self.keys.expand(len(key_states), -1, -1, -1), key_states], dim=-2),
                torch.cat([self.values.expand(len(value_states), -1, -1, -1), value_states], dim=-2))


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for this model: reserving where all its layers attend to everything, else the model's usual."""
    cache = _with_layers(model, ReservingLayer)
    return DynamicCache(config=model.config) if cache is None else cache


def shared_cache(model: PreTrainedModel, ids: list[int]) -> DynamicCache | None:
    """What the model keeps of these tokens (one forward), to put before each row of any number of batches.

    None where not all of its layers attend to everything: their caches forget, and so can't be shared.
    """
    cache = _with_layers(model, SharedLayer)
    if cache is not None:
        model(input_ids=torch.tensor([ids], device=device_of(model)), past_key_values=cache, use_cache=True,
              logits_to_keep=1)
    return cache


def forkable_cache(model: PreTrainedModel) -> DynamicCache | None:
    """An empty cache whose rows can be repeated once they are read; None where not all layers attend to everything."""
    return _with_layers(model, DynamicLayer)


def _with_layers(model: PreTrainedModel, kind: type[DynamicLayer]) -> DynamicCache | None:
    """An empty cache of such layers; None where not all layers of the model attend to everything."""
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [kind() for _ in cache.layers]
    return cache
