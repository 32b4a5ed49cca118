"""Attention for a batch of unrelated requests: each row has keys and values of its own, and no row is padded.

A row's keys and values are in one block of memory of its own, `RowMemory`, with space for all tokens that it may get.
A row of a decoding step is computed on exactly the numbers that it has when it is alone. So no mask separates rows,
none waits for the longest, and a row that leaves frees all of its memory.

Why not transformers' continuous batching: it lays the tokens of all requests into one row, and the adapter pool chooses
an adapter for each row. It owns the generation loop, with one generation configuration, and sizes its pages by the free
memory of a GPU. Its blocks are shared by token ids alone, which would mix adapters. Its cache classes for one sequence
(`DynamicCache`) copy all keys at each token, and join requests by padding alone; models that this attention does not
fit use them one by one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lora_med_rows"
OTHER_SCORES = ("softcap", "s_aux", "position_bias")  # what some models add to the scores, and SDPA cannot


@dataclass(frozen=True)
class LayerShape:
    """Of one layer of a cache: heads, and the sizes of a key and of a value."""

    heads: int
    key_size: int
    value_size: int

    @property
    def numbers(self) -> int:
        """How many numbers a token takes."""
        return self.heads * (self.key_size + self.value_size)


class RowMemory:
    """The keys and values of one request; `length` counts the tokens in it, `capacity` those that fit."""

    def __init__(self, shapes: Sequence[LayerShape], capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.capacity = capacity
        self.length = 0
        block = torch.empty(sum(shape.numbers for shape in shapes) * capacity, dtype=dtype, device=device)
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        start = 0
        for shape in shapes:
            tensors = []
            for size in (shape.key_size, shape.value_size):
                end = start + shape.heads * capacity * size
                tensors.append(block[start:end].view(1, shape.heads, capacity, size))
                start = end
            self.layers.append((tensors[0], tensors[1]))

    def copy_out(self, start: int, end: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The keys and values of the tokens from `start` to `end`, copied, layer by layer."""
        return [(keys[:, :, start:end].clone(), values[:, :, start:end].clone()) for keys, values in self.layers]

    def copy_in(self, states: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Append what `copy_out` returned."""
        end = self.length + states[0][0].shape[2]
        for (keys, values), (new_keys, new_values) in zip(self.layers, states, strict=True):
            keys[:, :, self.length : end] = new_keys
            values[:, :, self.length : end] = new_values
        self.length = end


class StepCache(Cache):
    """The cache of one forward pass over several rows, which all get the same number of new tokens.

    The rows' lengths change only by `advance`, so a pass that fails can be run again.
    """

    def __init__(self, rows: Sequence[RowMemory]) -> None:
        super().__init__(layers=[DynamicLayer() for _ in rows[0].layers])
        self.rows = rows
        self._layer = 0
        self._tokens = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new keys and values (rows, heads, tokens, size) of a layer; `attend` reads them there."""
        self._layer, self._tokens = layer_idx, key_states.shape[2]
        for number, row in enumerate(self.rows):
            keys, values = row.layers[layer_idx]
            end = row.length + self._tokens
            keys[0, :, row.length : end] = key_states[number]
            values[0, :, row.length : end] = value_states[number]
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The tokens of the longest row; positions are always given, so no model counts by it."""
        return max(row.length for row in self.rows)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """As for a row without a past: no mask is built."""
        return query_length, 0

    def advance(self, tokens: int) -> None:
        """Count the new tokens, after a pass that ended well."""
        for row in self.rows:
            row.length += tokens

    def attend(self, query: torch.Tensor, scaling: float | None, window: int | None) -> torch.Tensor:
        """The attention of each row's new tokens to all of its own: (rows, tokens, heads, size)."""
        tokens, outputs = query.shape[2], []
        for number, row in enumerate(self.rows):
            keys, values = row.layers[self._layer]
            end = row.length + tokens
            start = 0 if window is None else max(0, row.length + 1 - window)
            mask = None
            if tokens > 1 and (row.length or (window is not None and tokens > window)):
                mask = _mask(row.length - start, tokens, window, query.device)
            outputs.append(
                scaled_dot_product_attention(
                    query[number : number + 1],
                    keys[:, :, start:end],
                    values[:, :, start:end],
                    attn_mask=mask,
                    is_causal=tokens > 1 and mask is None,
                    scale=scaling,
                    enable_gqa=query.shape[1] != keys.shape[1],
                )
            )
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return joined.transpose(1, 2).contiguous()


_STEP: ContextVar[StepCache | None] = ContextVar("lora_med_rows", default=None)


@contextlib.contextmanager
def running(step: StepCache) -> Iterator[None]:
    """Inside, a model with this attention reads and writes the keys and values of `step`'s rows."""
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)


@contextlib.contextmanager
def row_attention(model: Any) -> Iterator[None]:
    """Inside, the model computes its attention row by row in `running`, and by transformers' SDPA elsewhere."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask_where_needed)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    step = _STEP.get()
    if step is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    others = [name for name in OTHER_SCORES if kwargs.get(name) is not None]
    if others:
        raise ValueError(f"the model's attention has {', '.join(others)}, which SDPA cannot compute")
    return step.attend(query, scaling, kwargs.get("sliding_window")), None


def _mask_where_needed(*arguments: Any, **options: Any) -> torch.Tensor | None:
    return sdpa_mask(*arguments, **options) if _STEP.get() is None else None


@functools.lru_cache(maxsize=8)
def _mask(before: int, tokens: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Which of `before` + `tokens` keys each new token sees, true if visible; cached for the layers of a pass."""
    query = torch.arange(before, before + tokens, device=device)[:, None]
    distance = query - torch.arange(before + tokens, device=device)[None]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)
