"""Attention of packed documents in one call on a GPU, by torch's own kernel for rows of many lengths.

`torch.nn.attention.varlen` runs flash attention over documents laid end to end, without another package. It supports
half precision, heads of at most 256 numbers and no dropout. Anything else goes to one SDPA call per document.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from typing import Any

import torch

from lora_med.models.precision import AMPERE

LARGEST_HEAD = 256
HALF = (torch.bfloat16, torch.float16)


def takes(query: torch.Tensor, value: torch.Tensor, *, dropout: float) -> bool:
    """Whether the kernel exists and fits: query and value of shape (1, heads, tokens, head size), on a GPU."""
    size = query.shape[-1]
    return query.device.type == "cuda" and fits(query.dtype, size, value.shape[-1], dropout) and _is_there(query.device)


def fits(dtype: torch.dtype, size: int, value_size: int, dropout: float) -> bool:
    """Whether the kernel supports heads of this size and format; narrower value heads are not supported."""
    return dtype in HALF and not dropout and size == value_size and size % 8 == 0 and size <= LARGEST_HEAD


@functools.cache
def _is_there(device: torch.device) -> bool:
    """Whether this torch has the kernel with support for windows, and the GPU is new enough for it."""
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return False
    return "window_size" in _parameters() and torch.cuda.get_device_capability(device) >= AMPERE


@functools.cache
def _parameters() -> frozenset[str]:
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: tuple[int, ...],
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Causal attention of documents laid end to end, each seeing only itself.

    Args:
        query: shape (1, heads, tokens, head size); `key` and `value` may have fewer heads.
        lengths: the length of each document.
        scaling: of the scores; 1 / sqrt(head size) if None.
        window: how many tokens back a token looks, itself included; None for all.

    Returns:
        Shape (1, tokens, heads, head size).
    """
    from torch.nn.attention import varlen

    offsets = _offsets(lengths, query.device)
    longest = max(lengths)
    sharing: dict[str, Any] = {"enable_gqa": query.shape[1] != key.shape[1]} if "enable_gqa" in _parameters() else {}
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    output = varlen.varlen_attn(
        queries,
        keys,
        values,
        offsets,
        offsets,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None or window >= longest else window - 1, 0),
        **sharing,
    )
    return output[None]  # type: ignore[index] - without auxiliary outputs it is one tensor


@functools.lru_cache(maxsize=8)
def _offsets(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """The start of each document and the end of the last, int32; cached because every layer of a pass needs them."""
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return ends.to(device, non_blocking=True)
