"""An answer's text, token by token: whole characters only, and nothing of a stop string.

The texts that `add` and `end` return, joined, are what the tokenizer decodes from all tokens at once, cut before the
first stop string. Bytes that are no text may be shown otherwise: what was shown is never taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INCOMPLETE = "\ufffd"  # how a tokenizer shows bytes that are no character yet


class AnswerText:
    """The text of one answer as its tokens arrive; `is_stopped` becomes true at a stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = [text for text in stop if text]
        self._tokens: list[int] = []
        self._begin = 0  # tokens before it are not decoded again
        self._shown = 0  # tokens before it are in the text already
        self._held = ""  # text that may be the beginning of a stop string
        self.is_stopped = False

    def add(self, token: int) -> str:
        """The text that is certain with this token, often empty."""
        self._tokens.append(token)
        before = self._decode(self._begin, self._shown)
        after = self._decode(self._begin, len(self._tokens))
        if after.endswith(INCOMPLETE) or len(after) <= len(before):
            return ""
        self._begin, self._shown = self._shown, len(self._tokens)
        return self._release(after[len(before) :])

    def end(self) -> str:
        """The text that was held back, at the end of an answer that no stop string ended."""
        if self.is_stopped:
            return ""
        before = self._decode(self._begin, self._shown)
        rest = self._decode(self._begin, len(self._tokens))[len(before) :]
        self._shown = len(self._tokens)
        text = self._release(rest)
        held, self._held = self._held, ""
        return text if self.is_stopped else text + held

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._tokens[start:end], skip_special_tokens=True)

    def _release(self, text: str) -> str:
        """The part of the held and the new text that cannot belong to a stop string."""
        text = self._held + text
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        size = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - size :]
        return text[: len(text) - size]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
