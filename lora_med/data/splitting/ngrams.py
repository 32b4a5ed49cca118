"""Texts as arrays of hashed words and word n-grams: what comparing many texts is made of. The same in every process."""

from __future__ import annotations

import re
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
WORD = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that nothing is lost modulo 2**64


@lru_cache(maxsize=1 << 18)
def _hash(word: str) -> int:
    return crc32(word.encode("utf-8", "surrogatepass"))


def word_hashes(text: str) -> Hashes:
    """One number for each word of a text, case and punctuation set aside; shape `(words,)`."""
    words = WORD.findall(text.casefold())
    return np.fromiter(map(_hash, words), np.uint64, len(words))


def ngrams(words: Hashes, length: int) -> Hashes:
    """One number for each run of `length` words; shape `(max(0, words - length + 1),)`."""
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    hashes = np.zeros(count, np.uint64)
    for offset in range(length):
        hashes = hashes * MULTIPLIER + words[offset : offset + count]
    return hashes
