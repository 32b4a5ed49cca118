"""Patterns for a tokenizer's control tokens in a text: `</s>`, `<|im_end|>`, `<think>`."""

from __future__ import annotations

import re
from typing import Any


def control_pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """A pattern that matches a tokenizer's control tokens, or None if it has none.

    Special tokens are control tokens, and so are added tokens in brackets, such as `<think>`. Added runs of white space
    are ordinary words.
    """
    special = set(tokenizer.all_special_tokens)
    for added in tokenizer.added_tokens_decoder.values():
        if added.special or re.fullmatch(r"<.+>|\[.+\]", added.content):
            special.add(added.content)
    longest_first = sorted((word for word in special if word), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def folding(tokenizer: Any, control: re.Pattern[str] | None) -> tuple[Any, Any]:
    """The tokenizer's normalizer, and a pattern for control tokens in its output; or (None, None)."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    added = tokenizer.added_tokens_decoder.values()
    words = [
        token.content
        for token in added
        if token.normalized and control is not None and control.fullmatch(token.content)
    ]
    if normalizer is None or not words:
        return None, None
    return normalizer.normalize_str, re.compile("|".join(re.escape(normalizer.normalize_str(word)) for word in words))
