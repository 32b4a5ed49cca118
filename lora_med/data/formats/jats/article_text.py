"""The text of a JATS article: abstract and body as sections, a paragraph a line, without citation markers.

Left out: references and the markers that point to them, figures and tables with their captions, formulas that are
only pictures or TeX, footnotes, supplements, back matter, and sections about the article itself (competing interests,
authors' contributions). Lists, quotations and boxed texts remain; a box that is placed outside the body comes last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lora_med.data.formats.citations import AUTHOR_END, AUTHOR_START, NUMBER, without_citations
from lora_med.data.record import Section

SKIPPED = {
    *("table-wrap", "table-wrap-group", "fig", "fig-group", "supplementary-material", "media", "graphic", "tex-math"),
    *("fn", "fn-group", "ref-list", "inline-graphic", "object-id", "table", "alt-text", "long-desc", "label", "notes"),
    *("inline-media", "sub-article", "response", "{http://www.w3.org/1998/Math/MathML}annotation"),
}
BLOCKS = {
    *("p", "list", "list-item", "disp-quote", "def-list", "def-item", "boxed-text", "disp-formula", "verse-group"),
    *("verse-line", "preformat", "statement", "speech", "disp-formula-group", "code", "question", "question-wrap"),
    *("answer", "answer-set", "explanation", "question-wrap-group"),
}
HEADINGS = {"title", "sec", "caption", "subtitle"}  # within a block, such as a box: lines of their own
ABOUT_THE_ARTICLE = re.compile(
    r"(?:competing|conflicts? of|declaration of (?:competing )?)\s*interests?|authors?['’]*s? contributions?|funding|"
    r"acknowledge?ments?|pre-?publication history|support(?:ing|ive) information|supplementary (?:material|data)s?|"
    r"abbreviations(?: used)?|availability of (?:supporting )?data(?: and materials?)?|disclosures?",
    re.IGNORECASE,
)
SPACES = re.compile(r"[ \t\r\n]+")
NUMERIC = re.compile(r"[\W\d_]*+(?:[a-z][\W\d_]*+)?")  # 12, [3], 4a, 5-7


def sections_of(meta: Any, article: Any) -> tuple[Section, ...]:
    """The sections of an article: those of `meta`'s abstract, of the body, and of boxes beside the body."""
    boxes = (box for box in article.iterfind("floats-group/boxed-text"))
    return (*_abstract(meta), *_body(article.find("body")), *(part for box in boxes for part in _box(box)))


def title_of(meta: Any) -> str:
    """The article's title on one line."""
    title = meta.find("title-group/article-title")
    return "" if title is None else _line(title)


def _abstract(meta: Any) -> Iterator[Section]:
    for abstract in meta.iterfind("abstract"):
        if abstract.get("abstract-type") in (None, "structured"):  # others: graphical, for the public, teasers
            yield from _sections(abstract, "Abstract", "ABSTRACT")


def _body(body: Any) -> Iterator[Section]:
    if body is not None:
        yield from _sections(body, None, None)


def _box(box: Any) -> Iterator[Section]:
    lines = "\n".join(_lines(box))
    if lines:
        yield Section(lines, "Box", "BOXED-TEXT")


def _sections(node: Any, label: str | None, category: str | None) -> Iterator[Section]:
    """The node's own paragraphs, then its sections, in order; a heading without its own text is dropped."""
    own = "\n".join(line for child in node if child.tag in BLOCKS for line in _lines(child))
    if own:
        yield Section(own, label, category)
    for child in node:
        if child.tag != "sec" or child.get("sec-type") in ("supplementary-material", "display-objects"):
            continue
        heading = child.find("title")
        title = "" if heading is None else _line(heading).rstrip(":")
        if not ABOUT_THE_ARTICLE.fullmatch(title):
            yield from _sections(child, title or label, category or (child.get("sec-type") or "").upper() or None)


def _lines(block: Any) -> Iterator[str]:
    """A block's text, one line for each paragraph; list items inside a paragraph are separate lines."""
    pieces: list[str] = []
    for text in _pieces(block):
        if text == "\n":
            line = without_citations("".join(pieces))
            if line:
                yield line
            pieces = []
        else:
            pieces.append(text)
    line = without_citations("".join(pieces))
    if line:
        yield line


def _line(node: Any) -> str:
    return " ".join(_lines(node))


def _pieces(node: Any) -> Iterator[str]:
    """The text below a node in order: "\\n" separates blocks, and citation markers are special characters."""
    if node.tag == "xref" and node.get("ref-type") == "bibr":
        cited = SPACES.sub(" ", "".join(node.itertext()))
        yield NUMBER if NUMERIC.fullmatch(cited) else f"{AUTHOR_START}{cited}{AUTHOR_END}"
        return
    if node.text:
        yield SPACES.sub(" ", node.text)
    for child in node:
        if child.tag == "break":
            yield " "
        elif child.tag not in SKIPPED:
            block = child.tag in BLOCKS or child.tag in HEADINGS
            if block:
                yield "\n"
            yield from _pieces(child)
            if block:
                yield "\n"
        if child.tail:
            yield SPACES.sub(" ", child.tail)
