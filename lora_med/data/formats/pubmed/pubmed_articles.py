"""PubMed files split into articles: the bytes of one article at a time, found by tags without a parser.

Anything that is not exactly in the form that NLM writes (another encoding, content between two articles) is Unusual:
the XML parser reads it instead.
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
    """Content outside the form that this module reads; the XML parser reads it."""


@dataclass(slots=True)
class Cut:
    """One article or list of deletions: its bytes, and their offset in the decompressed file."""

    content: bytes
    offset: int


class Lines:
    """The line number of an offset. Few are needed, so a second stream counts lines, only up to the last offset."""

    def __init__(self, path: Path):
        self._path, self._stream, self._read, self._line = path, None, 0, 1

    def at(self, offset: int) -> int:
        """The line of `offset`; offsets must not decrease from call to call."""
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


def has_plain_header(stream: BinaryIO) -> bool:
    """Whether a file begins like a PubMed file in UTF-8; the stream stays at its start."""
    head = stream.peek(HEADER_BYTES)[:HEADER_BYTES].removeprefix(MARK)  # type: ignore[attr-defined]
    return HEADER.match(head) is not None and not ENCODING.search(head)


def split_articles(stream: BinaryIO) -> Iterator[Cut]:
    """The articles and deletions of a file that `has_plain_header`, one after the other.

    Raises:
        Unusual: there is other content between them, or the file ends before its last tag.
    """
    blocks = _blocks(stream)
    buffer = next(blocks, b"")
    begun = len(MARK) if buffer.startswith(MARK) else 0
    header = HEADER.match(buffer, begun)
    if header is None:
        raise Unusual
    position, before = header.end(), 0
    while True:
        tag = START.match(buffer, position)
        if tag is None and buffer[position:].strip() and len(buffer) - position > LONGEST_START:
            raise Unusual
        if tag is not None and tag[2]:
            return
        end = buffer.find(ENDS[tag[1]], tag.end()) if tag is not None else -1
        if tag is None or end < 0:
            block = next(blocks, b"")
            if not block or len(buffer) - position > LONGEST_ARTICLE:
                raise Unusual
            before += position
            buffer, position = buffer[position:] + block, 0
            continue
        start, position = tag.start(1) - 1, end + len(ENDS[tag[1]])
        yield Cut(buffer[start:position], before + start)


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
    if match is None or (b"!" in content and b"<!" in content):  # a comment or CDATA
        raise Unusual
    return int(match[2]), int(match[1] or 1)
