"""PubMed articles read without an XML parser, only where the result equals a parser's.

Nine tenths of a record are authors and references, which are not needed; a parser builds them all. So the few needed
elements are found by their tags, in the order of NLM's DTD. Anything that is not exactly in that form is Unusual, and
lxml reads that article: an unknown entity, mark-up that does not nest, a control character, a retraction. Elements
that are not read are not checked either.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lora_med.data.formats.pubmed.pubmed_articles import Unusual
from lora_med.data.record import Bibliography, Section, Term

ARTICLE = re.compile(rb"<Article(?: [^<>]*)?>\s*<Journal>")
DATE = re.compile(rb"\s*(?:<Year>(\d{4})</Year>|<MedlineDate>([^<&]*)</MedlineDate>)")
YEAR = re.compile(r"\d{4}")
TITLE = re.compile(rb"<ArticleTitle(?: [^<>]*)?>")
PART = re.compile(rb'\s*<AbstractText((?: \w+="[^"<>]*")*) ?>')
ATTRIBUTE = re.compile(rb' (\w+)="([^"<>]*)"')
LANGUAGES = re.compile(rb"(?:<Language>[a-z]{3}</Language>\s*)+")
TYPE = re.compile(rb'<PublicationType UI="([^"<>]*)">([^<]*)</PublicationType>')
DESCRIPTOR = re.compile(rb"<DescriptorName ([^<]*)</DescriptorName>")
DESCRIBED = re.compile(rb'UI="(\w*)" MajorTopicYN="[YN]"(?: Type="\w*")?>(.*)', re.DOTALL)
TAG = re.compile(rb"""<(/?)([A-Za-z][\w:.-]*)(?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*\s*(/?)>""")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
REFERENCE = re.compile(r"&(?:(lt|gt|amp|quot|apos)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));")
NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
SPACES = re.compile(r"[\t\r\n][ \t\r\n]*| [ \t\r\n]+")  # of the layout; single spaces may remain
TRUNCATED = re.compile(r"(?<!\s)\s*+\(ABSTRACT TRUNCATED(?: AT \d+ WORDS)?\)\s*$", re.IGNORECASE)
RETRACTED, NOTICE = ("D016441", "Retracted Publication"), ("D016440", "Retraction of Publication")


@dataclass(slots=True)
class ArticleFields:
    """The fields of an article that is neither retracted nor a retraction notice."""

    title: str
    sections: tuple[Section, ...]
    about: Bibliography


def read_article(content: bytes, version: int) -> ArticleFields:
    """The fields of an article, from the bytes of one PubmedArticle.

    Raises:
        Unusual: the XML parser must read it.
    """
    start = ARTICLE.search(content)
    end = content.find(b"</Article>", start.end() if start else 0)
    last = content.find(b"</MedlineCitation>", end)
    if start is None or end < 0 or last < 0:
        raise Unusual
    journal = _until(content, b"</Journal>", start.end(), end)
    title = TITLE.search(content, journal, end)
    if title is None:
        raise Unusual
    titled = _until(content, b"</ArticleTitle>", title.end(), end)
    sections, position = _sections(content, titled, end)
    types = _list_content(content, b"PublicationType", position, end)
    _refuse_retraction(content, end, last)
    about = Bibliography(
        version,
        *_journal(content, start.end(), journal),
        _languages(content, position, end),
        _types(types) if types else (),
        _mesh(_list_content(content, b"MeshHeading", end, last)),
    )
    return ArticleFields(text_of(content[title.end() : titled]), sections, about)


def _until(content: bytes, tag: bytes, start: int, end: int) -> int:
    position = content.find(tag, start, end)
    if position < 0:
        raise Unusual
    return position


def _journal(content: bytes, start: int, end: int) -> tuple[int | None, str]:
    """Year and name of the journal in `content[start:end]`."""
    dated = _until(content, b"<PubDate>", start, end) + 9
    title_start = content.find(b"<Title>", dated, end)
    name = content[title_start + 7 : _until(content, b"</Title>", title_start, end)] if title_start >= 0 else b""
    return _year(content[dated : _until(content, b"</PubDate>", dated, end)]), _name(name)


@lru_cache(maxsize=1 << 12)
def _year(date: bytes) -> int | None:
    match = DATE.match(date)
    if match is None:
        raise Unusual
    return int(match[1]) if match[1] else year_in(_decoded(match[2]))


def year_in(date: str) -> int | None:
    """The first year in a date in words, as `1998 Dec-1999 Jan`."""
    match = YEAR.search(date)
    return int(match[0]) if match else None


@lru_cache(maxsize=1 << 14)
def _name(raw: bytes) -> str:
    return text_of(raw)


def _languages(content: bytes, start: int, end: int) -> tuple[str, ...]:
    position = content.find(b"<Language>", start, end)
    match = LANGUAGES.match(content, position) if position >= 0 else None
    if match is None or content.find(b"<Language", match.end(), end) >= 0:
        raise Unusual
    return _spoken(match[0])


@lru_cache(maxsize=1 << 10)
def _spoken(raw: bytes) -> tuple[str, ...]:
    return tuple(re.findall(r">([a-z]{3})<", raw.decode("ascii")))


def _list_content(content: bytes, name: bytes, start: int, end: int) -> bytes:
    """The content between `<nameList>` and its end tag; empty if there is no such list."""
    position = content.find(b"<" + name, start, end)
    if position < 0:
        return b""
    opened = position + len(name) + 6
    if content[position:opened] != b"<" + name + b"List>":
        raise Unusual
    return content[opened : _until(content, b"</" + name + b"List>", opened, end)]


@lru_cache(maxsize=1 << 12)
def _types(raw: bytes) -> tuple[Term, ...]:
    entries = TYPE.findall(raw)
    if TYPE.sub(b"", raw).strip():
        raise Unusual
    types = tuple(Term(_decoded(ui), text_of(name)) for ui, name in entries)
    if any({term.ui, term.name}.intersection(RETRACTED + NOTICE) for term in types):
        raise Unusual
    return types


def _mesh(raw: bytes) -> tuple[Term, ...]:
    descriptors = DESCRIPTOR.findall(raw)
    if len(descriptors) != raw.count(b"</MeshHeading>"):
        raise Unusual
    return tuple(map(_term, descriptors))


@lru_cache(maxsize=1 << 15)  # of 30,000 headings, each with its two attributes
def _term(raw: bytes) -> Term:
    match = DESCRIBED.fullmatch(raw)
    if match is None:
        raise Unusual
    return Term(match[1].decode("ascii"), text_of(match[2]))


def _refuse_retraction(content: bytes, start: int, end: int) -> None:
    linked = content.find(b"<CommentsCorrectionsList", start, end)
    if linked >= 0 and content.find(b"Retract", linked, end) >= 0:
        raise Unusual


def _sections(content: bytes, start: int, end: int) -> tuple[tuple[Section, ...], int]:
    """The sections, and the position after them."""
    opened = content.find(b"<Abstract", start, end)
    if opened < 0:
        return (), start
    if content[opened : opened + 10] != b"<Abstract>":
        raise Unusual
    closed = _until(content, b"</Abstract>", opened, end)
    parts = content[opened + 10 : closed].split(b"</AbstractText>")
    if b"<AbstractText" in parts.pop():
        raise Unusual
    labeled_texts: list[tuple[tuple[str | None, str | None], str]] = []
    for part in parts:
        match = PART.match(part)
        if match is None or part.find(b"<AbstractText", match.end()) >= 0:
            raise Unusual
        labeled_texts.append((_label_and_category(match[1]), text_of(part[match.end() :])))
    return labeled(labeled_texts), closed


@lru_cache(maxsize=1 << 12)
def _label_and_category(attributes: bytes) -> tuple[str | None, str | None]:
    """Label and category, cached: a few hundred pairs name nearly all sections."""
    if any(blank in attributes for blank in (b"\t", b"\n", b"\r")):
        raise Unusual
    values = dict(ATTRIBUTE.findall(attributes))
    return heading(_decoded(values.get(b"Label", b"")), _decoded(values.get(b"NlmCategory", b"")))


def heading(label: str, category: str) -> tuple[str | None, str | None]:
    """Label and category for a Section, from those in an article."""
    label = " ".join(label.split())
    return None if label.upper() in ("", "UNLABELED") else label, category.strip() or None


def labeled(parts: Sequence[tuple[tuple[str | None, str | None], str]]) -> tuple[Section, ...]:
    """Sections of `((label, category), text)`; empty ones, and NLM's remark on truncation at the end, are left out."""
    sections = [Section(text, label, category) for (label, category), text in parts if text]
    if sections and parts[-1][1].endswith(")"):
        last = sections.pop()
        if text := TRUNCATED.sub("", last.text):
            sections.append(Section(text, last.label, last.category))
    return tuple(sections)


def text_of(raw: bytes) -> str:
    """An element's text without inner mark-up, with the layout's white space as single spaces.

    Raises:
        Unusual: the mark-up does not nest, or a character is not valid in XML text.
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
