"""A tokenizer's control tokens, as they would be found in a text: `</s>`, `<|im_end|>`, `<think>`."""

from __future__ import annotations

import re
from typing import Any


def control_pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """What finds a tokenizer's control tokens in a text, or None if it has none.

    Special tokens are, and added ones in brackets such as `<think>`; added runs of white space are ordinary words.
    """
    special = set(tokenizer.all_special_tokens)
    for added in tokenizer.added_tokens_decoder.values():
        if added.special or re.fullmatch(r"<.+>|\[.+\]", added.content):
            special.add(added.content)
    found = sorted((word for word in special if word), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found))) if found else None


def folding(tokenizer: Any, control: re.Pattern[str] | None) -> tuple[Any, Any]:
    """The tokenizer's normalization and the control tokens that it looks for in a text so normalized; often neither."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    added = tokenizer.added_tokens_decoder.values()
    words = [one.content for one in added if one.normalized and control is not None and control.fullmatch(one.content)]
    if normalizer is None or not words:
        return None, None
    return normalizer.normalize_str, re.compile("|".join(re.escape(normalizer.normalize_str(word)) for word in words))
