"""The keys and values of a prefix that many prompts share, computed once and read by every row of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class CurrentPrefix:
    """The keys and values of one shared prefix, in memory until another one is asked for."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model, self._device = model, device
        self._ids: Sequence[int] = ()
        self._cache: Cache | None = None

    def cache(self, ids: Sequence[int]) -> Cache | None:
        """Those of the prefix `ids`, computed where it is not the last one; None without a prefix."""
        if ids != self._ids:
            self._cache = None  # released before the next one is computed
            self._cache = _run_prefix(self._model, ids, self._device) if ids else None
            self._ids = ids
        return self._cache


class _PrefixLayer(DynamicLayer):
    """The prefix's keys and values of one layer, shared by every row of a batch and never extended."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = self._prefix = (layer.keys, layer.values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prefix's keys and values, then the batch's own."""
        pairs = zip(self._prefix, (key_states, value_states), strict=True)
        keys, values = (torch.cat([shared.expand(len(own), -1, -1, -1), own], dim=-2) for shared, own in pairs)
        return keys, values


def _run_prefix(model: Any, ids: Sequence[int], device: torch.device) -> Cache:
    """Keys and values of each layer for the tokens of the shared prefix."""
    cache = DynamicCache()
    model(input_ids=torch.tensor([list(ids)], device=device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Cache(layers=[_PrefixLayer(layer) for layer in cache.layers])
