"""How many tokens a forward pass of scoring takes at once, which depends on the device."""

from __future__ import annotations

from typing import Any

CPU_BATCH_TOKENS = 512  # docs/performance.md: with 4,096 what an operator writes has left the caches when it is read


def fitting(batch_tokens: int, device: Any) -> int:
    """The most tokens of a batch on this torch.device: `batch_tokens`, or fewer on a CPU."""
    return min(batch_tokens, CPU_BATCH_TOKENS) if device.type == "cpu" else batch_tokens
