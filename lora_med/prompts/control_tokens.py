"""Patterns for a tokenizer's control tokens in a text: `</s>`, `<|im_end|>`, `<think>`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lora_med.models.tokens.numbering import trained_words

REASONING = ("<think>", "</think>")
MARKUP = re.compile(r"</?\w+>")
USER = "\ue000"


def control_pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """A pattern that matches a tokenizer's control tokens, or None if it has none.

    Special tokens are control tokens, and so are added tokens in brackets, such as `<think>`. Added runs of white space
    are ordinary words, and so are tokens that an adapter trains (`lora.trainable_tokens`).
    """
    return _pattern(_control_words(tokenizer))


def typed_pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """A pattern for the control tokens that stay ordinary text where someone typed them into a conversation.

    These are all control tokens but the markup of contents: `<think>` and `</think>`, and added tokens that have the
    form of a tag (`<tool_call>`), are not special, and are not what the chat template writes around a user's turn.
    """
    special = set(tokenizer.all_special_tokens)
    special |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    around = _around_a_user(tokenizer)
    return _pattern(
        word
        for word in _control_words(tokenizer)
        if word not in REASONING and (word in special or around is None or word in around or not MARKUP.fullmatch(word))
    )


def _control_words(tokenizer: Any) -> set[str]:
    words = set(tokenizer.all_special_tokens)
    for added in tokenizer.added_tokens_decoder.values():
        if added.special or re.fullmatch(r"<.+>|\[.+\]", added.content):
            words.add(added.content)
    return {word for word in words.difference(trained_words(tokenizer)) if word}


def _pattern(words: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _around_a_user(tokenizer: Any) -> str | None:
    """What the chat template writes around a user's turn; None if there is no template, or it refuses one turn."""
    if not tokenizer.chat_template:
        return None
    try:
        return tokenizer.apply_chat_template([{"role": "user", "content": USER}], tokenize=False)
    except Exception:  # a template is a program of its own and may raise anything; its rows name it later
        return None


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
