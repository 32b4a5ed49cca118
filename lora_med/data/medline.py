"""PubMed articles cut out of a file's bytes and read without an XML parser, wherever that gives just what one would.

Nine tenths of a record are authors, headings and references, which nobody here reads; a parser builds them all. So the
file is cut at its articles, and of each the few elements that are wanted are found by their tags. Whatever is not
plainly of the form that NLM writes (a comment, an unknown entity, mark-up that does not nest, a control character, a
retraction) is left to lxml, article by article. What is not read is not checked either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

BLOCK_BYTES = 1 << 20
HEADER_BYTES = 4096
HEADER = re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!DOCTYPE[^>\[]*>\s*)?<PubmedArticleSet(?:\s[^>]*)?>")
ENCODING = re.compile(rb"""<\?xml[^>]*encoding=["'](?!utf-8["'])""", re.IGNORECASE)
START = re.compile(rb"\s*<(?:(PubmedArticle|PubmedBookArticle|DeleteCitation)>|(/PubmedArticleSet)>)")
ENDS = {name: b"</" + name + b">" for name in (b"PubmedArticle", b"PubmedBookArticle", b"DeleteCitation")}
LONGEST_ARTICLE = 1 << 23
LONGEST_START = 1024  # bytes of white space and a tag
PMID = re.compile(rb'<PubmedArticle>\s*<MedlineCitation[^<>]*>\s*<PMID(?: Version="(\d{1,4})")?>(\d{1,9})</PMID>')
ARTICLE = re.compile(rb"<Article(?: [^<>]*)?>")
TITLE = re.compile(rb"<ArticleTitle(?: [^<>]*)?>")
PART = re.compile(rb'<AbstractText((?: \w+="[^"<>]*")*) ?(/?)>')
ATTRIBUTE = re.compile(rb' (\w+)="([^"<>]*)"')
LANGUAGE = re.compile(rb"<Language>([^<]*)</Language>")
TAG = re.compile(rb"""<(/?)([A-Za-z][\w:.-]*)(?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*\s*(/?)>""")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
REFERENCE = re.compile(r"&(?:(lt|gt|amp|quot|apos)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));")
NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
SPACES = re.compile(r"[\t\r\n][ \t\r\n]*| [ \t\r\n]+")  # of the layout, single spaces apart, which may stay


class Unusual(Exception):
    """Not of the form that is read here: for the XML parser."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One article or list of deletions: its bytes, and where they stand."""

    content: bytes
    buffer: bytes
    start: int
    lines_before: int

    @property
    def line(self) -> int:
        """The line of the file it begins on."""
        return 1 + self.lines_before + self.buffer.count(b"\n", 0, self.start)


@dataclass(frozen=True, slots=True)
class Plain:
    """What is read of an article: its title, `(label, category, text)` of each section, whether it is in English."""

    title: str
    sections: tuple[tuple[str, str, str], ...]
    english: bool


def begins_plainly(stream: BinaryIO) -> bool:
    """Whether a file's first bytes, which stay unread, are those of a PubMed file in UTF-8."""
    head = stream.peek(HEADER_BYTES)[:HEADER_BYTES].removeprefix(b"\xef\xbb\xbf")  # type: ignore[attr-defined]
    return HEADER.match(head) is not None and not ENCODING.search(head)


def cuts(stream: BinaryIO) -> Iterator[Cut]:
    """The articles and deletions of a file that `begins_plainly`, one after the other.

    Raises:
        Unusual: something else stands between them, or the file ends before its last tag.
    """
    blocks = _blocks(stream)
    buffer = next(blocks, b"").removeprefix(b"\xef\xbb\xbf")
    header = HEADER.match(buffer)
    assert header is not None
    place, lines = header.end(), 0
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
            lines += buffer.count(b"\n", 0, place)
            buffer, place = buffer[place:] + block, 0
            continue
        start, place = found.start(1) - 1, end + len(ENDS[found[1]])
        yield Cut(buffer[start:place], buffer, start, lines)


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
    if match is None or content.count(b"<MedlineCitation") != 1 or (b"!" in content and b"<!" in content):
        raise Unusual
    return int(match[2]), int(match[1] or 1)


def plain(content: bytes) -> Plain:
    """What is read of an article.

    Raises:
        Unusual: it has to be read by the XML parser.
    """
    start = ARTICLE.search(content)
    end = content.find(b"</Article>")
    last = content.find(b"</MedlineCitation>", end)
    if start is None or end < start.end() or last < 0:
        raise Unusual
    aside = max(content.find(b"</Abstract>", start.end(), end), start.end())
    if content.find(b"Retract", aside, last) >= 0 or content.find(b'"D01644', aside, last) >= 0:
        raise Unusual
    title = TITLE.search(content, start.end(), end)
    until = content.find(b"</ArticleTitle>", title.end(), end) if title else -1
    if title is None or until < 0:
        raise Unusual
    return Plain(
        text_of(content[title.end() : until]), _sections(content, until, end), _english(content, start.end(), end)
    )


def _english(content: bytes, start: int, end: int) -> bool:
    if content.find(b"<Language>eng</Language>", start, end) >= 0:
        return True
    spoken = [match[1].strip().lower() for match in LANGUAGE.finditer(content, start, end)]
    return not spoken or b"eng" in spoken


def _sections(content: bytes, start: int, end: int) -> tuple[tuple[str, str, str], ...]:
    opened = content.find(b"<Abstract>", start, end)
    if opened < 0:
        if content.find(b"<AbstractText", start, end) >= 0 or content.find(b"<Abstract", start, end) >= 0:
            raise Unusual
        return ()
    closed = content.find(b"</Abstract>", opened, end)
    if closed < 0:
        raise Unusual
    found: list[tuple[str, str, str]] = []
    place = content.find(b"<AbstractText", opened, closed)
    while place >= 0:
        match = PART.match(content, place)
        if match is None:
            raise Unusual
        until = match.end() if match[2] else content.find(b"</AbstractText>", match.end(), closed)
        if until < 0:
            raise Unusual
        following = content.find(b"<AbstractText", match.end(), closed)
        if 0 <= following < until:
            raise Unusual
        found.append((*_named(match[1]), text_of(content[match.end() : until])))
        place = following
    return tuple(found)


@lru_cache(maxsize=1 << 12)
def _named(attributes: bytes) -> tuple[str, str]:
    """Label and category; a few hundred pairs name nearly all sections there are."""
    if any(blank in attributes for blank in (b"\t", b"\n", b"\r")):
        raise Unusual
    found = dict(ATTRIBUTE.findall(attributes))
    return _decoded(found.get(b"Label", b"")), _decoded(found.get(b"NlmCategory", b""))


def text_of(raw: bytes) -> str:
    """An element's text, mark-up inside it taken off, layout's white space made single spaces.

    Raises:
        Unusual: the mark-up does not nest, or something is no text of XML.
    """
    if b"<" in raw:
        raw = _without_tags(raw)
    text = _decoded(raw)
    if "  " in text or "\n" in text or "\t" in text or "\r" in text:
        text = SPACES.sub(" ", text)
    return text.strip(" ")


def _without_tags(raw: bytes) -> bytes:
    depth: list[bytes] = []
    for closing, name, empty in TAG.findall(raw):
        if closing and (not depth or depth.pop() != name):
            raise Unusual
        if not closing and not empty:
            depth.append(name)
    bare = TAG.sub(b"", raw)
    if depth or b"<" in bare:
        raise Unusual
    return bare


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Unusual from None
    if not text.isprintable() and CONTROL.search(text):
        raise Unusual
    if "&" in text:
        if len(REFERENCE.findall(text)) != text.count("&"):
            raise Unusual
        text = REFERENCE.sub(_character, text)
    return text


def _character(match: re.Match[str]) -> str:
    if match[1]:
        return NAMED[match[1]]
    number = int(match[2]) if match[2] else int(match[3], 16)
    if number < 32 or 0xD800 <= number <= 0xDFFF or number in (0xFFFE, 0xFFFF) or number > 0x10FFFF:
        raise Unusual
    return chr(number)
