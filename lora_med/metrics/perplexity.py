"""Scores of running text from per-item sums: nll per token, perplexity, bits per byte.

Each is a ratio of sums over all items, so a long item weighs more than a short one. It is no mean of per-item means.
Bits per byte compares models of different vocabularies; the other two compare only models that share a tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lora_med.errors import DataError


def _ratio(nll: Sequence[float], sizes: Sequence[int], unit: str) -> float:
    if len(nll) != len(sizes) or sum(sizes) <= 0:
        raise DataError(f"{len(nll)} sums of nll over {len(sizes)} sizes in {unit}, {sum(sizes)} in all: no ratio")
    return math.fsum(nll) / sum(sizes)


def nll_per_token(nll: Sequence[float], tokens: Sequence[int]) -> float:
    """Negative log-likelihood in nats per token: all items' sum over all items' tokens."""
    return _ratio(nll, tokens, "tokens")


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    """exp of the nll per token."""
    return math.exp(nll_per_token(nll, tokens))


def bits_per_byte(nll: Sequence[float], sizes_bytes: Sequence[int]) -> float:
    """Negative log-likelihood in bits per byte of UTF-8 text."""
    return _ratio(nll, sizes_bytes, "bytes") / math.log(2)
