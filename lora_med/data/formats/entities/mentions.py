"""Mentions as a file states them, placed in their text: a span for each, or the reason why it does not fit.

Offsets count characters (code points). Tools also count UTF-16 units (JavaScript), UTF-8 bytes, a line end as one or
two characters, or from one. Another count is taken only where the mentions' own texts prove it: it places each mention
that characters place, and at least one more.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lora_med.data.formats.tables import is_encodable
from lora_med.data.outcome import PartDrop
from lora_med.data.record import Span

LINE_END = re.compile("\r\n|\r|\n")
WIDE = (
    None,
    re.compile("[\U00010000-\U0010ffff]"),
    re.compile("[^\x00-\x7f]"),
)  # characters, UTF-16 units, UTF-8 bytes


@dataclass(frozen=True, slots=True)
class Mention:
    """A mention as a file states it: its pieces are (start, end) each; `text` is None where the file lacks it."""

    type: str
    pieces: tuple[tuple[int, int], ...]
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """A text with one form of line end, the spans of the mentions that fit, and for each other one the reason."""

    text: str
    spans: tuple[Span, ...]
    unfit: tuple[str, ...]

    def part_drops(self, where: str) -> list[PartDrop]:
        """The mentions that were left out, as outcomes."""
        return [PartDrop(reason, where) for reason in self.unfit]


@dataclass(frozen=True, slots=True)
class _Scale:
    """How offsets count: from `base`, and in more than one unit for the characters at `indices`."""

    base: int
    indices: Sequence[int] = ()
    starts: Sequence[int] = ()  # their offsets in units
    widths: Sequence[int] = ()

    def index(self, offset: int) -> int | None:
        """The index of the character at an offset; None within a character, or before the text."""
        offset -= self.base
        last = bisect_right(self.starts, offset) - 1
        if last < 0:
            return offset if offset >= 0 else None
        beyond = offset - self.starts[last]
        if beyond == 0:
            return self.indices[last]
        return None if beyond < self.widths[last] else self.indices[last] + 1 + beyond - self.widths[last]


def place_mentions(text: str, mentions: Sequence[Mention], *, from_one: bool = False) -> Placement:
    """The text with `\\n` as its only line end, and its mentions as spans, in the order given, each once.

    A mention in pieces with nothing but white space between them is one span. Reasons: outside_text, empty_mention,
    text_differs, discontinuous, no_offsets, no_type. `from_one`: offsets may count from one, if the texts prove it.
    """
    line_ends = list(LINE_END.finditer(text))
    plain = LINE_END.sub("\n", text) if "\r" in text else text
    spans: list[Span | str] = []
    proven: set[int] | None = None
    for scale in _scales(plain, line_ends, from_one):
        tried = [_span(mention, plain, scale) for mention in mentions]
        proves = {
            index
            for index, (mention, span) in enumerate(zip(mentions, tried, strict=True))
            if mention.text is not None and not isinstance(span, str)
        }
        if proven is None or proves > proven:
            spans, proven = tried, proves
        if all(
            mention.text is None or not isinstance(span, str) for mention, span in zip(mentions, spans, strict=True)
        ):
            break
    fit = (span for span in spans if isinstance(span, Span))
    return Placement(plain, tuple(dict.fromkeys(fit)), tuple(span for span in spans if isinstance(span, str)))


def _scales(plain: str, line_ends: Sequence[re.Match[str]], from_one: bool) -> Iterator[_Scale]:
    """The ways to count, the plain one first."""
    pairs = [index for index, match in enumerate(line_ends) if match[0] == "\r\n"]
    before = 0  # pairs so far: each is one character of the plain text
    indices: list[int] = []
    for match in line_ends:
        indices.append(match.start() - before)
        before += match[0] == "\r\n"
    widened = [tuple(indices[index] for index in pairs)]
    widened += [()] if pairs else [tuple(indices)] if indices else []
    for base in (0, 1) if from_one else (0,):
        for wide_line_ends in widened:
            for number, wide in enumerate(WIDE):
                extra = {match.start(): _extra(match[0], number) for match in wide.finditer(plain)} if wide else {}
                if wide is None or extra:
                    yield _scale(base, extra | dict.fromkeys(wide_line_ends, 1))


def _extra(letter: str, count: int) -> int:
    return 1 if count == 1 else len(letter.encode("utf-8", "surrogatepass")) - 1


def _scale(base: int, extra: Mapping[int, int]) -> _Scale:
    indices = sorted(extra)
    starts: list[int] = []
    added = 0
    for index in indices:
        starts.append(index + added)
        added += extra[index]
    return _Scale(base, indices, starts, [extra[index] + 1 for index in indices])


def _span(mention: Mention, text: str, scale: _Scale) -> Span | str:
    """The mention's span, or why it has none."""
    if not mention.type.strip() or not is_encodable(mention.type):
        return "no_type"
    if not mention.pieces:
        return "no_offsets"
    pieces: list[tuple[int, int]] = []
    for first, last in sorted(mention.pieces):
        if first >= last:
            return "empty_mention"
        start, end = scale.index(first), scale.index(last)
        if start is None or end is None or end > len(text):
            return "outside_text"
        if pieces and not text[pieces[-1][1] : start].strip():
            pieces[-1] = (pieces[-1][0], max(end, pieces[-1][1]))
        else:
            pieces.append((start, end))
    if len(pieces) > 1:
        return "discontinuous"
    ((start, end),) = pieces
    text_at_offsets = text[start:end]
    if not text_at_offsets.strip():
        return "empty_mention"
    if mention.text is not None and text_at_offsets.split() != mention.text.split():
        return "text_differs"
    return Span(start, end, mention.type.strip(), text_at_offsets)


def laid_out(parts: Iterable[tuple[int, str]], longest_gap: int, measure: int = 0) -> str | None:
    """One text with each part at its offset, gaps filled by blanks; None where the parts overlap or are far away.

    `measure` 0 counts characters, 1 UTF-16 units, 2 UTF-8 bytes.
    """
    pieces: list[str] = []
    end = 0
    for offset, text in sorted(parts, key=lambda part: part[0]):
        if not 0 <= offset - end <= longest_gap:
            return None
        pieces += [" " * (offset - end), text]
        end = offset + len(text) + (0 if measure == 0 else _added(text, measure))
    return "".join(pieces)


def _added(text: str, measure: int) -> int:
    wide = WIDE[measure]
    return sum(_extra(match[0], measure) for match in wide.finditer(text)) if wide else 0
