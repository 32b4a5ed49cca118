"""PubMed files cut at their articles: the bytes of one article at a time, found by their tags, not by a parser.

Whatever is not plainly of the form that NLM writes (another encoding, something between two articles) is Unusual: the
XML parser reads it instead.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lora_med.files import open_stream

MARK = codecs.BOM_UTF8
BLOCK_BYTES = 1 << 20
HEADER_BYTES = 4096
HEADER = re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!DOCTYPE[^>\[]*>\s*)?<PubmedArticleSet(?:\s[^>]*)?>")
ENCODING = re.compile(rb"""<\?xml[^>]*encoding=["'](?!utf-8["'])""", re.IGNORECASE)
START = re.compile(rb"\s*<(?:(PubmedArticle|PubmedBookArticle|DeleteCitation)>|(/PubmedArticleSet)>)")
ENDS = {name: b"</" + name + b">" for name in (b"PubmedArticle", b"PubmedBookArticle", b"DeleteCitation")}
LONGEST_ARTICLE = 1 << 23
LONGEST_START = 1024  # bytes of white space and a tag
PMID = re.compile(rb'<PubmedArticle>\s*<MedlineCitation[^<>]*>\s*<PMID(?: Version="(\d{1,4})")?>(\d{1,9})</PMID>')


class Unusual(Exception):
    """Not of the form that is read here: for the XML parser."""


@dataclass(slots=True)
class Cut:
    """One article or list of deletions: its bytes, and where they begin in the file, once decompressed."""

    content: bytes
    offset: int


class Lines:
    """Tells the line of an offset. Few are asked for, so a second stream counts, and only as far as the last one."""

    def __init__(self, path: Path):
        self._path, self._stream, self._read, self._line = path, None, 0, 1

    def at(self, offset: int) -> int:
        """The line of `offset`, which is none before the last one asked for."""
        if self._stream is None:
            self._stream = open_stream(self._path)
        while self._read < offset:
            block = self._stream.read(min(BLOCK_BYTES, offset - self._read))
            self._line += block.count(b"\n")
            self._read += len(block) or offset
        return self._line

    def close(self) -> None:
        """Close the second stream, if there is one."""
        if self._stream is not None:
            self._stream.close()


def begins_plainly(stream: BinaryIO) -> bool:
    """Whether a file's first bytes, which stay unread, are those of a PubMed file in UTF-8."""
    head = stream.peek(HEADER_BYTES)[:HEADER_BYTES].removeprefix(MARK)  # type: ignore[attr-defined]
    return HEADER.match(head) is not None and not ENCODING.search(head)


def cuts(stream: BinaryIO) -> Iterator[Cut]:
    """The articles and deletions of a file that `begins_plainly`, one after the other.

    Raises:
        Unusual: something else stands between them, or the file ends before its last tag.
    """
    blocks = _blocks(stream)
    buffer = next(blocks, b"")
    begun = len(MARK) if buffer.startswith(MARK) else 0
    header = HEADER.match(buffer, begun)
    if header is None:
        raise Unusual
    place, before = header.end(), 0
    while True:
        found = START.match(buffer, place)
        if found is None and buffer[place:].strip() and len(buffer) - place > LONGEST_START:
            raise Unusual
        if found is not None and found[2]:
            return
        end = buffer.find(ENDS[found[1]], found.end()) if found is not None else -1
        if found is None or end < 0:
            block = next(blocks, b"")
            if not block or len(buffer) - place > LONGEST_ARTICLE:
                raise Unusual
            before += place
            buffer, place = buffer[place:] + block, 0
            continue
        start, place = found.start(1) - 1, end + len(ENDS[found[1]])
        yield Cut(buffer[start:place], before + start)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """The stream in blocks; the next one is decompressed on another core while this one is read."""
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(stream.read, BLOCK_BYTES)
        while block := coming.result():
            coming = ahead.submit(stream.read, BLOCK_BYTES)
            yield block


def identity(content: bytes) -> tuple[int, int]:
    """`(PMID, version)` of an article.

    Raises:
        Unusual: it does not begin with them.
    """
    match = PMID.match(content)
    if match is None or (b"!" in content and b"<!" in content):  # a comment, or what CDATA hides
        raise Unusual
    return int(match[2]), int(match[1] or 1)
