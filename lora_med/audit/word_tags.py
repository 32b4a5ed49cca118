"""Tags of tokens read word by word: the tag of a word is that of its last token.

A decoder's token sees only what precedes it. At the first token of "Okafor" it has read "Ok"; at the last one it has
read the name and all that is before it. What follows a word it never sees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lora_med.prompts.entity_tags import OUTSIDE

WORD = re.compile(r"[^\s,;:()\[\]\"<>|=]{1,100}|[,;:()\[\]\"<>|=]")
_EDGES = " \t\r.'’!?*_/-`,;:()[]\"<>|="
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)
_LETTER = re.compile(r"[^\W_]")


def words_of(text: str) -> list[tuple[int, int]]:
    """The words of a text as (start, end): runs without blanks, and marks such as commas and brackets alone."""
    return [match.span() for match in WORD.finditer(text)]


def read_words(
    words: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]], scores: np.ndarray, labels: Sequence[str]
) -> list[tuple[float, str]]:
    """For each word: how much its likeliest type leads "no type" in log-odds, and that type.

    Args:
        offsets: (start, end) of each token, empty for no text.
        scores: tokens x labels.
    """
    types = list(dict.fromkeys(label[2:] for label in labels if label != OUTSIDE))
    columns = [[number for number, label in enumerate(labels) if label[2:] == kind] for kind in types]
    by_type = np.stack([np.logaddexp.reduce(scores[:, own], axis=1) for own in columns], axis=1)
    leads = (by_type - scores[:, [labels.index(OUTSIDE)]])[_last_tokens(words, offsets)]
    best = leads.argmax(axis=1)
    return [(float(row[column]), types[column]) for row, column in zip(leads, best, strict=True)]


def _last_tokens(words: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The last token that begins in each word, or before it where it shares a token with the word before."""
    ends: list[int] = []
    token = last = 0
    for _, end in words:
        while token < len(offsets) and offsets[token][0] < end:
            if offsets[token][0] < offsets[token][1]:
                last = token
            token += 1
        ends.append(last)
    return ends


def trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The range without marks at its ends and without a possessive; None if it has no letter or digit."""
    word = text[start:end]
    if not _LETTER.search(word):
        return None
    start += len(word) - len(word.lstrip(_EDGES))
    word = text[start:end].rstrip(_EDGES)
    shorter = _POSSESSIVE.sub("", word)
    return start, start + len(shorter or word)
