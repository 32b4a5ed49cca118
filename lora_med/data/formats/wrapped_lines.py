"""Text that was wrapped at a width, as in the legacy XML of ClinicalTrials.gov: paragraphs and lists without the wraps.

Blocks are separated by empty lines. Within a block a line continues the one before, unless it begins an item. A mark
such as `mg.`, `5.` or `II)` may be the end of a wrapped sentence, so a number or letter begins an item only in its
turn: first after a colon or where the next one follows, later after the one before it, and only at the indentation of
its list. A dash begins an item where another dash of its block has its indentation, and after a colon, semicolon or
full stop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

BULLET = re.compile(r"[-*•]\s+")
COUNTED = re.compile(r"(\()?(\d{1,3}|[A-Za-z]|[ivx]{2,5}|[IVX]{2,5})([.)])\s+(?=\S)")
ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv")
FIRST = ("1", "a", "A", "i", "I")
ENDS = (":", ".", ";")
ANY_INDENT = -1  # of a first line that begins beside its tag
SAME_INDENT = 2  # blanks by which the marks of one list may differ: ` 9.` and `10.` end at one column
NEAR_LINES = 100  # of a list, in which its other items are looked for


@dataclass(frozen=True, slots=True)
class _Mark:
    """The mark at the start of a line: its indentation, its form (`-`, or what is around a number), and its number."""

    indent: int
    form: str
    number: str

    def is_beside(self, other: _Mark) -> bool:
        """Whether another mark may be of the same list."""
        free = ANY_INDENT in (self.indent, other.indent)
        return self.form == other.form and (free or abs(self.indent - other.indent) <= SAME_INDENT)

    def is_next(self, later: _Mark) -> bool:
        """Whether `later` is the next of the same list."""
        return self.is_beside(later) and _follows(self.number, later.number)


def joined(text: str) -> str:
    """The paragraphs of a wrapped text, with empty lines between them; each item of a list is a line, dashes as `*`."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").expandtabs().split("\n")]
    blocks: list[list[tuple[str, _Mark | None]]] = [[]]
    for number, line in enumerate(lines):
        if line.strip():
            blocks[-1].append((line.strip(), _mark(line, ANY_INDENT if number == 0 else _indent(line))))
        elif blocks[-1]:
            blocks.append([])
    return "\n\n".join("\n".join(_block(block)) for block in blocks if block)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _mark(line: str, indent: int) -> _Mark | None:
    bare = line.lstrip()
    if BULLET.match(bare):
        return _Mark(indent, "-", "")
    counted = COUNTED.match(bare)
    return _Mark(indent, f"{counted[1] or ''}{counted[3]}", counted[2]) if counted else None


def _block(lines: Sequence[tuple[str, _Mark | None]]) -> list[str]:
    result: list[str] = []
    items: list[_Mark] = []
    for number, (line, mark) in enumerate(lines):
        words = " ".join(line.split())
        later = [other for _, other in lines[number + 1 : number + 1 + NEAR_LINES] if other is not None]
        if number and not (mark is not None and _begins(mark, items[-NEAR_LINES:], later, lines[number - 1][0])):
            result[-1] += f" {words}"
            continue
        if mark is not None:
            items.append(mark)
        result.append(f"* {words[1:].lstrip()}" if mark is not None and mark.form == "-" else words)
    return result


def _begins(mark: _Mark, items: Sequence[_Mark], later: Sequence[_Mark], before: str) -> bool:
    """Whether a line with a mark begins an item: `items` began before it, and `before` is the line above it."""
    if mark.form == "-":
        return before.endswith(ENDS) or any(other.is_beside(mark) for other in (*items, *later))
    if mark.number in FIRST and (before.endswith(":") or any(mark.is_next(other) for other in later)):
        return True
    return any(other.is_next(mark) for other in items)


def _follows(earlier: str, later: str) -> bool:
    """Whether a number or letter is the next after another, in the same case."""
    if earlier.isdigit() or later.isdigit():
        return earlier.isdigit() and later.isdigit() and int(later) == int(earlier) + 1
    if earlier.islower() != later.islower():
        return False
    earlier, later = earlier.lower(), later.lower()
    if len(earlier) == len(later) == 1 and ord(later) == ord(earlier) + 1:
        return True
    return earlier in ROMAN and later in ROMAN and ROMAN.index(later) == ROMAN.index(earlier) + 1
