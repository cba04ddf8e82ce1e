"""A key-value cache with room to grow: a generated token costs its own length, not a copy of all before it."""

from __future__ import annotations

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

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


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for this model: reserving where all its layers attend to everything, else the model's usual."""
    cache = DynamicCache(config=model.config)
    if all(type(layer) is DynamicLayer for layer in cache.layers):
        cache.layers = [ReservingLayer() for _ in cache.layers]
    return cache
