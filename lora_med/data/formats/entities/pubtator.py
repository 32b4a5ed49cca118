"""Annotated documents from PubTator files, the format of NCBI's corpora; plain or gz.

A document is `PMID|t|title`, `PMID|a|abstract`, then tab-separated rows. Rows are mentions `PMID start end text type
id` (with a seventh column, the parts of a composite mention) and relations `PMID type id id`. An empty line ends it.
Offsets count characters of `title + " " + abstract`, the end exclusive.
https://www.ncbi.nlm.nih.gov/CBBresearch/Lu/Demo/tmTools/Format.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lora_med.data.formats.line_blocks import Line, blocks
from lora_med.data.formats.row_fields import Wrong
from lora_med.data.formats.tables import is_encodable
from lora_med.data.outcome import Again, Drop, Input, Outcome
from lora_med.data.record import Annotated, Span
from lora_med.errors import DataError
from lora_med.files import archive_errors

TEXT_LINE = re.compile(r"(?P<pmid>\d+)\|(?P<part>[ta])\|(?P<text>.*)", re.DOTALL)
FIX = "fix the document, or set data.skip_bad=true (--skip-bad)"
MENTION_CELLS, RELATION_CELLS = (6, 7), 4


class _Wrong(Wrong):
    """A fault of a document, and the line with the fault."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


def read_pubtator(inputs: Sequence[Input], source: str) -> Iterable[Outcome]:
    """The documents of the files as records of `source`; a mention's text is the text at its offsets.

    Drops with an error: bad, damaged_file. A bad document does not affect the others: an empty line ends it.
    """

    def again() -> Iterator[Outcome]:
        for path in inputs:
            if isinstance(path, Path):
                yield from _file(path, source)

    return Again(again)


def _file(path: Path, source: str) -> Iterator[Outcome]:
    try:
        with archive_errors(path):
            for lines in blocks(path):
                try:
                    yield _document(lines, source)
                except _Wrong as wrong:
                    yield Drop("bad", DataError(str(wrong), where=f"{path}:{wrong.line}", fix=FIX))
    except DataError as error:
        yield Drop("damaged_file", error)


def _document(lines: Sequence[Line], source: str) -> Annotated:
    for line in lines:
        if not is_encodable(line.text):
            raise _Wrong("the line is not UTF-8", line.number)
    pmid, title = _part(lines, 0, "t")
    own, abstract = _part(lines, 1, "a")
    if own != pmid:
        raise _Wrong(f"expected the abstract of PMID {pmid}, got that of {own}", lines[1].number)
    text = f"{title} {abstract}"
    if not text.strip():
        raise _Wrong("title and abstract are empty", lines[0].number)
    spans = [span for line in lines[2:] if (span := _span(line, pmid, text)) is not None]
    return Annotated(f"pmid:{pmid}", pmid, source, text, tuple(dict.fromkeys(spans)))


def _part(lines: Sequence[Line], index: int, part: str) -> tuple[str, str]:
    line = lines[min(index, len(lines) - 1)]
    match = TEXT_LINE.fullmatch(line.text) if index < len(lines) else None
    if match is None or match["part"] != part:
        name = "title" if part == "t" else "abstract"
        raise _Wrong(f"expected PMID|{part}|{name}, the {name} of a document", line.number)
    return match["pmid"], match["text"]


def _span(line: Line, pmid: str, text: str) -> Span | None:
    """The mention of a row; None for a relation."""
    cells = line.text.split("\t")
    if len(cells) == RELATION_CELLS and not cells[1].isdigit():
        return None
    if len(cells) not in MENTION_CELLS or cells[0] != pmid:
        raise _Wrong(f"expected 6 or 7 tab-separated cells that begin with PMID {pmid}", line.number)
    if not (cells[1].isascii() and cells[1].isdigit() and cells[2].isascii() and cells[2].isdigit()):
        raise _Wrong("expected the start and the end of a mention as numbers of characters", line.number)
    if len(cells[1]) > 9 or len(cells[2]) > 9 or not int(cells[1]) < int(cells[2]) <= len(text):
        raise _Wrong(f"expected 0 <= start < end <= {len(text)}, the document's length", line.number)
    start, end = int(cells[1]), int(cells[2])
    text_at_offsets = text[start:end]
    if text_at_offsets.split() != cells[3].split():
        raise _Wrong(f"the mention at {start}-{end} is not the text at these offsets", line.number)
    if not cells[4].strip() or not text_at_offsets.strip():
        raise _Wrong("expected a mention with a type", line.number)
    return Span(start, end, cells[4].strip(), text_at_offsets)
