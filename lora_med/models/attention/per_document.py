"""Attention for packed rows: every document attends only to itself, at linear cost in the number of documents.

transformers' own SDPA separates packed documents with a dense mask over the complete row: exact, but it costs the
square of the packed length. Here each document is one call on its own slice, which is exact too and masks nothing. On
newer GPUs one call of torch's own kernel computes all. A row is packed if it comes with `document_lengths`, or with
`cu_seq_lens_q` (offsets of the documents, as for flash attention). Any other call, such as generation with a cache or a
padded batch, goes to transformers' SDPA unchanged. For a model with a window, transformers would still build a mask of
all tokens by all tokens: `no_mask` around the call of a packed row avoids it.

Documents may share a prefix: then each continuation sees the prefix and itself. Each continuation is one call too.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lora_med.models.attention import block_attention, varlen

NAME = "lora_med_sdpa"
_MASKED: ContextVar[bool] = ContextVar("masked", default=True)


def register_attention() -> str:
    """Make `attn_implementation="lora_med_sdpa"` known to transformers; returns that name. Safe to repeat."""
    AttentionInterface.register(NAME, per_document_attention)
    AttentionMaskInterface.register(NAME, _mask_where_needed)
    return NAME


@contextlib.contextmanager
def no_mask() -> Iterator[None]:
    """Inside, transformers builds no mask for this attention: for packed rows, whose document lengths suffice."""
    before = _MASKED.set(False)
    try:
        yield
    finally:
        _MASKED.reset(before)


def _mask_where_needed(*arguments: Any, **options: Any) -> torch.Tensor | None:
    return sdpa_mask(*arguments, **options) if _MASKED.get() else None


def _mask(before: int, length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Which keys are visible to tokens that follow `before` others: those, and causally their own; True if visible.

    A window limits this to that many tokens back, as transformers' sliding window. Shape (length, before + length).
    """
    query = torch.arange(before, before + length, device=device)[:, None]
    distance = query - torch.arange(before + length, device=device)[None]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


@functools.lru_cache(maxsize=32)
def _continuation_mask(prefix: int, length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """The mask of a continuation, cached because every layer of a pass needs it."""
    return _mask(prefix, length, window, device)


def per_document_attention(
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
    """The attention of a row of documents laid end to end.

    Args:
        module: the attention layer; its `num_key_value_groups` is the number of query heads per key head.
        query: shape (1, heads, tokens, head size); `key` and `value` may have fewer heads.
        attention_mask: for transformers' SDPA; not used for a packed row.
        kwargs: `document_lengths`, the length of each document, or for a shared prefix the lengths of the prefix and
            its continuations; or `cu_seq_lens_q`, shape (documents + 1), int32, the offsets. Without either,
            transformers' SDPA is used. `sliding_window` limits how far back a token looks.

    Returns:
        The output, shape (1, tokens, heads, head size), and None in place of the weights.
    """
    lengths = _lengths(kwargs)
    if lengths is None or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    if kwargs.get("softcap") is not None:
        raise ValueError("SDPA cannot cap attention scores (softcap); load the model with attention 'eager'")
    window = kwargs.get("sliding_window")
    narrow = window is not None and window < max(map(sum, lengths))
    if not narrow and not dropout and block_attention.pays(query, value):
        return block_attention.attend(query, key, value, lengths, scaling).transpose(1, 2), None
    if all(len(document) == 1 for document in lengths) and varlen.takes(query, value, dropout=dropout):
        alone = tuple(length for (length,) in lengths)
        return varlen.attend(query, key, value, alone, scaling=scaling, window=window), None
    attend = functools.partial(
        torch.nn.functional.scaled_dot_product_attention,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=getattr(module, "num_key_value_groups", 1) > 1,
    )
    flat = [length for document in lengths for length in document]
    segments = zip(query.split(flat, 2), key.split(flat, 2), value.split(flat, 2), strict=True)
    outputs = []
    for prefix, *continuations in lengths:
        queries, keys, values = next(segments)
        if window is not None and prefix > window:
            outputs.append(attend(queries, keys, values, attn_mask=_mask(0, prefix, window, query.device)))
        else:
            outputs.append(attend(queries, keys, values, is_causal=True))
        for length in continuations:
            queries, own_keys, own_values = next(segments)
            mask = _continuation_mask(prefix, length, window, query.device)
            outputs.append(
                attend(queries, torch.cat([keys, own_keys], 2), torch.cat([values, own_values], 2), attn_mask=mask)
            )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _lengths(options: dict[str, Any]) -> list[tuple[int, ...]] | None:
    """The documents of a packed row, or None for any other. Lengths given as Python numbers need no wait for a GPU."""
    if (lengths := options.get("document_lengths")) is not None:
        return lengths
    offsets = options.get("cu_seq_lens_q")
    return None if offsets is None else [(length,) for length in offsets.diff().tolist()]
