"""Tags on the word behind the one they are about, as lora_med/audit/tagger.py reads them; a test compares the two."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import Any

AFTER, NO_WORD = "AFTER-", "\n."
WORD = re.compile(r"[^\s,;:()\[\]\"<>|=]{1,100}|[,;:()\[\]\"<>|=]")


def on_the_word_behind(text: str, spans: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The text with a mark at its end, and each span from its second word to the word behind it, of type AFTER-."""
    words = [match.span() for match in WORD.finditer(text + NO_WORD)]
    starts = [start for start, _ in words]
    moved = []
    for span in spans:
        first, last = bisect_right(starts, span["start"]) - 1, bisect_left(starts, span["end"])
        end = words[min(last, len(words) - 1)][1]
        moved.append({"start": words[first + 1][0], "end": end, "type": AFTER + span["type"]})
    return text + NO_WORD, moved
