"""Text that was wrapped at a width, as in the legacy XML of ClinicalTrials.gov: paragraphs and lists without the wraps.

Blocks are separated by empty lines. Within a block a line continues the one before, unless it begins an item. A mark
such as `mg.`, `5.` or `II)` may be the end of a wrapped sentence, so a number or letter begins an item only in its
turn: first after a colon or where the next one follows, later after the one before it, and only at the indentation of
its list. A dash begins an item where another dash of its block has its indentation, and after a colon, semicolon or
full stop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

BULLET = re.compile(r"[-*•]\s+")
COUNTED = re.compile(r"(\()?(\d{1,3}|[A-Za-z]|[ivx]{2,5}|[IVX]{2,5})([.)])\s+(?=\S)")
ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv")
FIRST = ("1", "a", "A", "i", "I")
ENDS = (":", ".", ";")
DEEPEST_INDENT = 200  # deeper ones count as equal
ANY_INDENT = -1  # of a first line that begins beside its tag
SAME_INDENT = 2  # blanks by which the marks of one list may differ: ` 9.` and `10.` end at one column
NEAR_LINES = 40  # below a line, in which the next items of its list are looked for


@dataclass(frozen=True, slots=True)
class _Mark:
    """The mark at the start of a line: its indentation, its form (`-`, or what is around a number), and its number."""

    indent: int
    form: str
    number: str

    def is_beside(self, indent: int) -> bool:
        """Whether a mark at another indentation may be of the same list."""
        return ANY_INDENT in (self.indent, indent) or abs(self.indent - indent) <= SAME_INDENT

    def is_next_of(self, earlier: _Mark) -> bool:
        """Whether this mark is the next of the list of `earlier`."""
        return self.form == earlier.form and self.is_beside(earlier.indent) and earlier.number in _before(self.number)


@dataclass(slots=True)
class _Items:
    """The items of a block so far: the last indentation of each number, and all indentations of dashes."""

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    dashes: set[int] = field(default_factory=set)

    def add(self, mark: _Mark) -> None:
        if mark.form == "-":
            self.dashes.add(mark.indent)
        else:
            self.numbers[mark.form, mark.number] = mark.indent

    def precede(self, mark: _Mark) -> bool:
        """Whether a mark is the next of one of their lists."""
        if mark.form == "-":
            return any(mark.is_beside(indent) for indent in self.dashes)
        indents = (self.numbers.get((mark.form, number)) for number in _before(mark.number))
        return any(indent is not None and mark.is_beside(indent) for indent in indents)


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
    return min(len(line) - len(line.lstrip()), DEEPEST_INDENT)


def _mark(line: str, indent: int) -> _Mark | None:
    bare = line.lstrip()
    if BULLET.match(bare):
        return _Mark(indent, "-", "")
    counted = COUNTED.match(bare)
    return _Mark(indent, f"{counted[1] or ''}{counted[3]}", counted[2]) if counted else None


def _block(lines: Sequence[tuple[str, _Mark | None]]) -> Iterator[str]:
    """The paragraph and the items of a block, a line each."""
    pieces: list[str] = []
    items = _Items()
    for number, (line, mark) in enumerate(lines):
        words = " ".join(line.split())
        if number and not (mark is not None and _begins(mark, items, lines, number)):
            pieces.append(words)
            continue
        if pieces:
            yield " ".join(pieces)
        if mark is not None:
            items.add(mark)
        pieces = [f"* {words[1:].lstrip()}" if mark is not None and mark.form == "-" else words]
    yield " ".join(pieces)


def _begins(mark: _Mark, items: _Items, lines: Sequence[tuple[str, _Mark | None]], number: int) -> bool:
    """Whether the line `number` of a block begins an item with its mark."""
    if items.precede(mark):
        return True
    before = lines[number - 1][0]
    later = [other for _, other in lines[number + 1 : number + 1 + NEAR_LINES] if other is not None]
    if mark.form == "-":
        return before.endswith(ENDS) or any(other.form == "-" and mark.is_beside(other.indent) for other in later)
    return mark.number in FIRST and (before.endswith(":") or any(other.is_next_of(mark) for other in later))


def _before(number: str) -> list[str]:
    """What may come before a number or letter in a list: `1` before `2`, `b` before `c`, `i` before `ii`."""
    if number.isdigit():
        return [str(int(number) - 1)]
    lower = number.lower()
    letters = [chr(ord(lower) - 1)] if len(lower) == 1 and lower > "a" else []
    romans = [ROMAN[ROMAN.index(lower) - 1]] if lower in ROMAN[1:] else []
    return [name.upper() if number.isupper() else name for name in letters + romans]
