"""Dropout masks of the fused LoRA layers.

On a CPU torch draws dropout masks one number at a time from one generator, which takes a quarter of a step. `draw_mask`
uses the bytes of a faster generator, seeded by torch's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lora_med.models.attention.block_attention import as_bits

LEVELS = 256
Draw = Callable[[torch.Tensor, float], torch.Tensor]


def draw_mask(like: torch.Tensor, dropout: float) -> torch.Tensor:
    """The dropout mask of a tensor, as int8 of its shape: -1 retained, 0 dropped.

    Each element is dropped with exactly the given probability: a random byte is compared with a threshold, which itself
    is drawn between the two nearest bytes. The mask depends only on torch's random state.
    """
    drawn = torch.rand((), dtype=torch.float64)
    threshold = int(dropout * LEVELS + float(drawn)) - LEVELS // 2
    if like.device.type == "cpu":
        seed = int(torch.randint(np.iinfo(np.int64).max, ()))
        noise = np.random.SFC64(seed).random_raw(-(-like.numel() // 8)).view(np.int8)[: like.numel()]
        retained = torch.from_numpy(noise >= threshold)  # numpy compares bytes five times faster than torch on a CPU
    else:
        retained = torch.empty(like.numel(), dtype=torch.int8, device=like.device).random_(-128, 128) >= threshold
    return retained.view(torch.int8).neg_().view(like.shape)


def masked(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`values` with zeros where the mask is 0, by a bitwise `and`: three times faster than by a product."""
    bits = as_bits(values)
    return (bits & mask.to(bits.dtype)).view(values.dtype)
