"""PubMed articles in the MEDLINE display format, as PubMed's "Send to: Citation manager" saves them (`.nbib`).

A record is lines of a tag of four characters, `- ` and a value; lines that begin with six blanks continue the value.
Records begin with PMID. Tags: https://www.nlm.nih.gov/bsd/mms/medlineelements.html. The format has no versions and no
identifiers of types and headings, so these are 1 and empty. Sections of an abstract are in its text, as in
`BACKGROUND: ... METHODS: ...`; they are the sections of the passage, as they are when it is read from XML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from lora_med.data.formats.containers.encoding_guess import likely_encoding
from lora_med.data.formats.pubmed.pubmed_fast import NOTICE, RETRACTED, heading, labeled, year_in
from lora_med.data.formats.pubmed.pubmed_xml import passage
from lora_med.data.outcome import Drop, Outcome
from lora_med.data.record import Bibliography, Section, Term
from lora_med.errors import DataError

START = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}[A-Z]{2,4} {0,2}- ")
TAG = re.compile(r"([A-Z]{2,4}) {0,2}- ?(.*)", re.DOTALL)
PMID = re.compile(r"\d{1,9}")
LABEL = re.compile(r"(?:^|(?<=[.?!)\]%;] ))([A-Z][A-Z0-9 ,/&'()-]{2,70}): (?=\S)")
LONGEST_LINE, LONGEST_RECORD = 1 << 20, 1 << 23  # bytes
HEAD_BYTES = 256
FIX = "export the records again, or set data.skip_bad=true (--skip-bad)"


@dataclass(slots=True)
class MedlineRecord:
    """The values of a record by tag, in order, and the line it begins at; `error` if a line of it is not of the
    format."""

    line: int
    values: dict[str, list[list[str]]] = field(default_factory=dict)  # tag -> its values, each in the lines it came in
    error: str = ""
    _last: list[str] | None = None

    def add(self, line: str, tagged: re.Match[str] | None, number: int) -> None:
        """Add a line: a value with its tag, or more of the last value."""
        if tagged is not None:
            self._last = [tagged[2].strip()]
            self.values.setdefault(tagged[1], []).append(self._last)
        elif line.startswith(" ") and line.strip() and self._last is not None:
            self._last.append(line.strip())
        elif line.strip():
            self.error = self.error or f"line {number} has no tag such as `TI  - ` and continues none"

    def all(self, tag: str) -> list[str]:
        """The values of a tag, in order, each on one line."""
        return [" ".join(lines) for lines in self.values.get(tag, ())]

    def first(self, *tags: str) -> str:
        """The first value of the first tag that has one."""
        return next((value for tag in tags for value in self.all(tag)), "")


def is_medline(stream: BinaryIO) -> bool:
    """Whether a file begins with a tagged line; the stream stays at its start."""
    return START.match(stream.peek(HEAD_BYTES)[:HEAD_BYTES]) is not None  # type: ignore[attr-defined]


def medline_records(stream: BinaryIO, where: str) -> Iterator[MedlineRecord]:
    """The records of a file, one at a time.

    Raises:
        DataError: a line or record so long that the file is of another format.
    """
    record = MedlineRecord(1)
    number = size = 0
    while raw := stream.readline(LONGEST_LINE):
        number += 1
        size += len(raw)
        if len(raw) == LONGEST_LINE or size > LONGEST_RECORD:
            raise DataError("a line or record so long is no PubMed record", where=f"{where}:{number}", fix=FIX)
        for line in _lines(raw, record, first=number == 1):
            match = TAG.fullmatch(line)
            if match is not None and match[1] == "PMID" and record.values:
                yield record
                record, size = MedlineRecord(number), len(raw)
            record.add(line, match, number)
    if record.values or record.error:
        yield record


def _lines(raw: bytes, record: MedlineRecord, *, first: bool) -> list[str]:
    """A line of bytes as text, in two where a CR ends a line of its own."""
    try:
        text = (raw.removeprefix(b"\xef\xbb\xbf") if first else raw).decode("utf-8")
    except UnicodeDecodeError:
        guess = likely_encoding(raw)
        looks = f"; its bytes look like {guess.label}" if guess is not None else ""
        record.error = record.error or f"the text is not UTF-8{looks}"
        return []
    if "\x00" in text:
        record.error = record.error or "the text holds a NUL character"
    return text.rstrip("\r\n").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def medline_pmid(record: MedlineRecord) -> int | None:
    """The record's PMID; None where it has none of digits."""
    pmid = record.first("PMID")
    return int(pmid) if PMID.fullmatch(pmid) and pmid.isascii() else None


def medline_outcome(pmid: int, record: MedlineRecord, where: str, *, keep_retracted: bool) -> Outcome:
    """The passage of a record, or a drop with the reason."""
    if record.error:
        return Drop("bad", DataError(record.error, where=f"{where}, PMID {pmid}", fix=FIX))
    types = set(record.all("PT"))
    if not keep_retracted and (types & set(RETRACTED) or "RIN" in record.values):
        return Drop("retracted")
    if types & set(NOTICE) or "ROF" in record.values:
        return Drop("retraction_notice")
    return passage(pmid, record.first("TI", "BTI"), _sections(record.first("AB")), _about(record))


def _about(record: MedlineRecord) -> Bibliography:
    return Bibliography(
        1,
        year_in(record.first("DP")),
        record.first("JT", "BTI"),
        tuple(language.lower() for language in record.all("LA")),
        tuple(Term("", name) for name in record.all("PT")),
        tuple(Term("", name.partition("/")[0].strip("*")) for name in record.all("MH")),
    )


def _sections(abstract: str) -> tuple[Section, ...]:
    """The sections of an abstract that begins with a label; otherwise the abstract is one."""
    abstract = " ".join(abstract.split())
    matches = list(LABEL.finditer(abstract))
    if not matches or matches[0].start() > 0:
        return labeled([((None, None), abstract)])
    ends = [match.start() for match in matches[1:]] + [len(abstract)]
    parts = [
        (heading(match[1], ""), abstract[match.end() : end].strip()) for match, end in zip(matches, ends, strict=True)
    ]
    return labeled(parts)
