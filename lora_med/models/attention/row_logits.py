"""The logits of several rows by one pass: end to end without padding, where the model's attention can separate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lora_med.models.attention.per_document import NAME, no_mask


def row_logits(model: Any, rows: Sequence[Sequence[int]], pad_token: int) -> list[torch.Tensor]:
    """The logits of each row of token ids, shape (its tokens, outputs), as if it were computed alone, but for rounding.

    Args:
        pad_token: fills up rows where the attention is not lora_med's own.
    """
    lengths = [len(row) for row in rows]
    if model.config._attn_implementation == NAME:
        ids = torch.tensor([[token for row in rows for token in row]], device=model.device)
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(model.device)
        own = {"position_ids": positions, "document_lengths": [(length,) for length in lengths]}
        with torch.inference_mode(), no_mask():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **own).logits
        return list(logits[0].split(lengths))
    width = max(lengths)
    padded = [[*row, *[pad_token] * (width - len(row))] for row in rows]
    mask = [[1] * length + [0] * (width - length) for length in lengths]
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor(padded, device=model.device), attention_mask=torch.tensor(mask, device=model.device)
        ).logits
    return [row[:length] for row, length in zip(logits, lengths, strict=True)]
