"""Integers of 2 to 8 bits packed densely into 32-bit words: GPTQ, AWQ, and compressed-tensors' pack-quantized."""

from __future__ import annotations

from typing import Any

import torch

WORD = 32
ROWS_NUMBERS = 1 << 24  # integers unpacked at a time, each in 8 bytes
AWQ_PLACE = (0, 4, 1, 5, 2, 6, 3, 7)  # where in a word AutoAWQ's GEMM layout puts each of eight neighboring outputs


def unpack(words: Any, bits: int, count: int) -> Any:
    """The first `count` unsigned integers in each row of `words` (rows, words), as uint8 (rows, count).

    The lowest bits come first, and an integer may continue in the next word.
    """
    if WORD % bits == 0:
        return _unpack_whole(words, bits)[:, :count].contiguous()
    starts = torch.arange(count) * bits
    word, shift = starts // WORD, starts % WORD
    following = (word + 1).clamp(max=words.shape[1] - 1)
    mask = (1 << bits) - 1
    rows = max(1, ROWS_NUMBERS // max(1, count))
    parts = []
    for some in words.split(rows):
        wide = some.to(torch.int64) & 0xFFFFFFFF
        numbers = wide[:, word] >> shift
        crosses = shift + bits > WORD
        if bool(crosses.any()):
            numbers[:, crosses] |= wide[:, following[crosses]] << (WORD - shift[crosses])
        parts.append((numbers & mask).to(torch.uint8))
    return torch.cat(parts) if parts else torch.empty((0, count), dtype=torch.uint8)


def _unpack_whole(words: Any, bits: int) -> Any:
    """All integers of `words` where none continues in the next word, by the bytes of the words."""
    eights = words.contiguous().view(torch.uint8).view(len(words), -1)
    if bits == 8:
        return eights
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    return ((eights[:, :, None] >> shifts) & ((1 << bits) - 1)).flatten(1)


def unpack_awq(words: Any) -> Any:
    """The 4-bit integers of AutoAWQ's GEMM layout, (rows, words) to (rows, 8 * words) as uint8."""
    numbers = unpack(words, 4, 8 * words.shape[1])
    return numbers.view(len(words), -1, 8)[:, :, list(AWQ_PLACE)].reshape(len(words), -1)
