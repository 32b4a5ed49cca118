"""Attention for packed rows: every document attends to itself alone, at linear cost in the number of documents.

transformers' own SDPA keeps packed documents apart with a dense mask over the whole row: exact, but it costs the square
of the packed length. Here each document is one call on its own slice, which is exact too and masks nothing. A row is
packed if `cu_seq_lens_q` comes with it (offsets of the documents, as flash attention takes them); any other call, such
as generation with a cache or a padded batch, goes to transformers' SDPA unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lora_med_sdpa"


def register_attention() -> str:
    """Make `attn_implementation="lora_med_sdpa"` known to transformers; returns that name. Safe to repeat."""
    AttentionInterface.register(NAME, per_document_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def _window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Causal and no further back than `window` tokens, as transformers' sliding window; True where attention goes."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None]
    return (distance >= 0) & (distance < window)


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
        module: the attention layer; its `num_key_value_groups` says how many query heads share a key head.
        query: shape (1, heads, tokens, head size); `key` and `value` may have fewer heads.
        attention_mask: for transformers' SDPA; of a packed row the offsets say all there is to say.
        kwargs: `cu_seq_lens_q`, shape (documents + 1), int32, are the offsets; without it transformers' SDPA does the
            work. `sliding_window` limits how far back a token looks.

    Returns:
        The output, shape (1, tokens, heads, head size), and None in place of the weights.
    """
    offsets = kwargs.get("cu_seq_lens_q")
    if offsets is None or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    if kwargs.get("softcap") is not None:
        raise ValueError("SDPA cannot cap attention scores (softcap); load the model with attention 'eager'")
    window = kwargs.get("sliding_window")
    grouped = getattr(module, "num_key_value_groups", 1) > 1
    lengths = offsets.diff().tolist()
    outputs = []
    for one_query, one_key, one_value in zip(
        query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True
    ):
        length = one_query.shape[2]
        mask = _window_mask(length, window, query.device) if window is not None and length > window else None
        outputs.append(
            torch.nn.functional.scaled_dot_product_attention(
                one_query,
                one_key,
                one_value,
                attn_mask=mask,
                dropout_p=dropout,
                scale=scaling,
                is_causal=mask is None,
                enable_gqa=grouped,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None
