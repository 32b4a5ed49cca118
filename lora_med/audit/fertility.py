"""Tokens per word (fertility) of a tokenizer, on the medical terms that ship and on the words of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lora_med.prompts.tokens_and_labels import Encoder

WORD = re.compile(r"[^\W\d_]{4,}")
FREQUENT = 5
SHOWN_WORDS = 10


@dataclass(frozen=True)
class Fertility:
    """Tokens per word: of the data's words by frequency, of the shipped terms, and the frequent words with the most.

    `words` holds `(word, tokens, how often)`; it is empty where the data may not be shown.
    """

    data: float
    terms: float
    words: tuple[tuple[str, int, int], ...]


def fertility(texts: Iterable[str], tokenizer: Any, *, show: bool) -> Fertility:
    """The fertility of `tokenizer` on `texts`; each word is tokenized with a space before it."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word.casefold() for word in WORD.findall(text))
    names = list(counts)
    sizes = dict(zip(names, _sizes(names, tokenizer), strict=True))
    total = counts.total()
    known = _terms()
    terms = _sizes(known, tokenizer)
    term_words = sum(len(term.split()) for term in known)
    frequent = [word for word, count in counts.items() if count >= FREQUENT]
    finest = sorted(frequent, key=lambda word: (-sizes[word], -counts[word], word))[:SHOWN_WORDS]
    return Fertility(
        data=round(sum(sizes[word] * count for word, count in counts.items()) / total, 3) if total else 0.0,
        terms=round(sum(terms) / term_words, 3),
        words=tuple((word, sizes[word], counts[word]) for word in finest) if show else (),
    )


def _sizes(words: list[str], tokenizer: Any) -> list[int]:
    if not words:
        return []
    return [len(ids) for ids in Encoder(tokenizer).raw([f" {word}" for word in words])]


def _terms() -> list[str]:
    text = (files("lora_med") / "assets" / "terms" / "medical.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
