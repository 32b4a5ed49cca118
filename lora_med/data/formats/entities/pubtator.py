"""Annotated documents from PubTator files, the format of NCBI's corpora; plain or gz.

A document is `PMID|t|title`, `PMID|a|abstract`, then tab-separated rows. Rows are mentions `PMID start end text type
id` (the id may be missing; a seventh column holds the parts of a composite mention) and relations, in which a type is
where a mention has its start. An empty line, or the next title, ends it. Offsets count characters of
`title + " " + abstract`, the end exclusive. A mention that does not fit the text is left out and counted.
https://www.ncbi.nlm.nih.gov/CBBresearch/Lu/Demo/tmTools/Format.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lora_med.data.formats.entities.mentions import Mention, place_mentions
from lora_med.data.formats.line_blocks import Line, blocks, holds_nul
from lora_med.data.formats.row_fields import Wrong
from lora_med.data.formats.tables import is_encodable
from lora_med.data.outcome import Again, Drop, Input, Outcome
from lora_med.data.record import Annotated
from lora_med.errors import DataError
from lora_med.files import archive_errors

TEXT_LINE = re.compile(r"(?P<name>[A-Za-z0-9_.-]{1,64})\|(?P<part>[ta])\|(?P<text>.*)", re.DOTALL)
FIX = "fix the document, or set data.skip_bad=true (--skip-bad)"
MENTION_CELLS, RELATION_CELLS = (5, 6, 7), (4, 5)
NOVELTY = ("Novel", "No")  # the fifth cell of a relation of BioRED


class _Wrong(Wrong):
    """A fault of a document, and the line with the fault."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


def read_pubtator(inputs: Sequence[Input], source: str, encoding: str | None = None) -> Iterable[Outcome]:
    """The documents of the files as records of `source`; a mention's text is the text at its offsets.

    Drops with an error: bad, damaged_file. A bad document does not affect the others.
    """

    def again() -> Iterator[Outcome]:
        for path in inputs:
            if isinstance(path, Path):
                yield from _file(path, source, encoding)

    return Again(again)


def _file(path: Path, source: str, encoding: str | None) -> Iterator[Outcome]:
    try:
        with archive_errors(path):
            for block in blocks(path, encoding):
                for lines in _documents(block):
                    try:
                        yield from _document(lines, source, path)
                    except _Wrong as wrong:
                        yield Drop("bad", DataError(str(wrong), where=f"{path}:{wrong.line}", fix=FIX))
    except DataError as error:
        yield Drop("damaged_file", error)


def _documents(block: Sequence[Line]) -> Iterator[list[Line]]:
    """The documents of a block: each title after the first line begins one."""
    document: list[Line] = []
    for line in block:
        match = TEXT_LINE.fullmatch(line.text)
        if document and match is not None and match["part"] == "t":
            yield document
            document = []
        document.append(line)
    yield document


def _document(lines: Sequence[Line], source: str, path: Path) -> Iterator[Outcome]:
    for line in lines:
        if not is_encodable(line.text):
            raise _Wrong("the line is not UTF-8", line.number)
        if nul := holds_nul(line):
            raise _Wrong(nul, line.number)
    name, title = _part(lines, 0, "t")
    has_abstract = len(lines) > 1 and TEXT_LINE.fullmatch(lines[1].text) is not None
    own, abstract = _part(lines, 1, "a") if has_abstract else (name, "")
    if own != name:
        raise _Wrong(f"expected the abstract of PMID {name}, got that of {own}", lines[1].number)
    text = f"{title} {abstract}"
    if not text.strip():
        raise _Wrong("title and abstract are empty", lines[0].number)
    rows = lines[2 if has_abstract else 1 :]
    mentions = [mention for line in rows if (mention := _mention(line, name)) is not None]
    placement = place_mentions(text, mentions)
    if len(mentions) > 1 and len(placement.unfit) == len(mentions):
        what = f"none of the {len(mentions)} mentions is the text at its offsets"
        raise _Wrong(what, rows[0].number)
    yield from placement.part_drops(f"{path}:{lines[0].number}")
    yield Annotated(_uid(name), name, source, placement.text, placement.spans)


def _uid(name: str) -> str:
    if name.isdigit():
        return f"pmid:{name}"
    return f"pmc:{name}" if name.upper().startswith("PMC") else f"document:{name}"


def _part(lines: Sequence[Line], index: int, part: str) -> tuple[str, str]:
    line = lines[index]
    match = TEXT_LINE.fullmatch(line.text)
    if match is None or match["part"] != part:
        name = "title" if part == "t" else "abstract"
        raise _Wrong(f"expected PMID|{part}|{name}, the {name} of a document", line.number)
    return match["name"], match["text"]


def _mention(line: Line, name: str) -> Mention | None:
    """The mention of a row; None for a relation."""
    cells = line.text.rstrip("\t").split("\t")
    numbers = [cell.strip().isascii() and cell.strip().isdigit() for cell in cells[1:3]]
    names_a_relation = len(cells) in RELATION_CELLS and cells[0] == name and not numbers[0] and bool(cells[1].strip())
    if names_a_relation and (not numbers[1] or len(cells) == 4 or cells[4] in NOVELTY):
        return None
    if len(cells) not in MENTION_CELLS or cells[0] != name:
        raise _Wrong(f"expected 5 to 7 tab-separated cells that begin with PMID {name}", line.number)
    if not all(numbers):
        raise _Wrong("expected the start and the end of a mention as numbers of characters", line.number)
    start, end = (int(cell.strip()[:10]) for cell in cells[1:3])
    return Mention(cells[4], ((start, end),), cells[3])
