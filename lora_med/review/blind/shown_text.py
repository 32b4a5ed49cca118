"""Answers as raters see them: the same whitespace and no markup, so that form does not give a model away.

Offsets of marks count characters of this shown text.
"""

from __future__ import annotations

import re

MANY_TIMES_LONGER = 2.0
_HEADING = re.compile(r"^[^\S\n]*#{1,6}[^\S\n]+", re.MULTILINE)
_BULLET = re.compile(r"^([^\S\n]*)[*•‣·–][^\S\n]+", re.MULTILINE)
_EMPHASIS = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*|__(?=\S)(.+?)(?<=\S)__")
_SPACES = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_SENTENCE = re.compile(r"[^\n]+?(?:[.!?](?=\s|$)|(?=\n)|$)")
SHORT = 200_000  # characters; longer texts are split into lines only


def shown_text(text: str) -> str:
    """The text without markup of headings, bullets and emphasis, and with plain whitespace."""
    lines = "\n".join(text.splitlines())
    plain = _BULLET.sub(r"\1- ", _HEADING.sub("", lines))
    plain = _EMPHASIS.sub(lambda match: match[1] or match[2], plain)
    trimmed = "\n".join(_SPACES.sub(" ", line).strip() for line in plain.split("\n"))
    return _BLANK_LINES.sub("\n\n", trimmed).strip()


def sentence_ranges(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence or line, in characters: what a rater can mark."""
    if len(text) > SHORT:
        return _line_ranges(text)
    ranges = []
    for match in _SENTENCE.finditer(text):
        blanks = len(match[0]) - len(match[0].lstrip())
        if match[0].strip():
            ranges.append((match.start() + blanks, match.end()))
    return ranges


def _line_ranges(text: str) -> list[tuple[int, int]]:
    ranges, start = [], 0
    for line in text.split("\n"):
        if line.strip():
            ranges.append((start, start + len(line)))
        start += len(line) + 1
    return ranges


def words(text: str) -> int:
    """How many words a text has."""
    return len(text.split())


def differ_much(first: str, second: str) -> bool:
    """Whether one text has more than twice the words of the other: raters and readers are told so."""
    counts = sorted((words(first), words(second)))
    return counts[1] > MANY_TIMES_LONGER * max(counts[0], 1)
