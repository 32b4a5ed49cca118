"""PubMed Central articles in JATS (.nxml, .xml), one Passage each: title, abstract, body, without citation markers.

Single files, and the tar.gz packages of the PMC Open Access subset. A section of the body is a Section with its own
title as label, and so is a subsection; paragraphs are lines. Left out: references and the markers that point to them,
figures, tables, formulas that are only pictures or TeX, footnotes, supplements and back matter. Sections about the
article itself (competing interests, authors' contributions) are left out too. Format:
https://jats.nlm.nih.gov/archiving. License: each article's own, in its <license>; most of the subset is CC BY.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lora_med.data.formats.archives import FIX, Document, outcomes_of, xml_root
from lora_med.data.formats.citations import AUTHOR_END, AUTHOR_START, NUMBER, without_citations
from lora_med.data.outcome import Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Passage, Section
from lora_med.errors import DataError

SUFFIXES = (".nxml", ".xml")
SKIPPED = {
    *("table-wrap", "table-wrap-group", "fig", "fig-group", "supplementary-material", "media", "graphic", "tex-math"),
    *("fn", "fn-group", "ref-list", "inline-graphic", "object-id", "table", "alt-text", "long-desc", "label", "notes"),
}
BLOCKS = {
    *("p", "list", "list-item", "disp-quote", "def-list", "def-item", "boxed-text", "disp-formula", "verse-group"),
    *("verse-line", "preformat", "statement", "speech"),
}
ABOUT_THE_ARTICLE = re.compile(
    r"(?:competing|conflicts? of|declaration of (?:competing )?)\s*interests?|authors?['’]*s? contributions?|funding|"
    r"acknowledge?ments?|pre-?publication history|support(?:ing|ive) information|supplementary (?:material|data)s?|"
    r"abbreviations(?: used)?|availability of (?:supporting )?data(?: and materials?)?|disclosures?",
    re.IGNORECASE,
)
SPACES = re.compile(r"[ \t\r\n]+")
NUMERIC = re.compile(r"[\W\d_]*+(?:[a-z][\W\d_]*+)?")  # 12, [3], 4a, 5-7


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The articles of the files. Drops: retracted, retraction_notice, not_english, no_text; with an error: bad,
    damaged_file."""
    return outcomes_of(inputs, SUFFIXES, lambda document: _articles(document, options.keep_retracted))


def _articles(document: Document, keep_retracted: bool) -> Iterator[Outcome]:
    root = xml_root(document)
    articles = list(root.iter("article")) if root.tag in ("article", "pmc-articleset", "articles") else []
    if not articles:
        raise DataError("expected an article in JATS", where=f"{document.where}:1", fix=FIX)
    for article in articles:
        yield _outcome(article, keep_retracted, document.where)


def _outcome(article: Any, keep_retracted: bool, file: str) -> Outcome:
    meta = article.find("front/article-meta")
    ids = {} if meta is None else {node.get("pub-id-type"): (node.text or "").strip() for node in meta if _is_id(node)}
    number = (ids.get("pmc") or ids.get("pmcid") or ids.get("pmcaid") or "").upper().removeprefix("PMC")
    if meta is None or not (number.isascii() and number.isdigit()):
        where = f"{file}:{article.sourceline}"
        return Drop("bad", DataError("expected an article-id of the type pmc, of digits", where=where, fix=FIX))
    links = {node.get("related-article-type") for node in meta.iterfind("related-article")}
    if article.get("article-type") == "retraction":
        return Drop("retraction_notice")
    if not keep_retracted and links & {"retraction-forward", "retracted-by"}:
        return Drop("retracted")
    language = article.get("{http://www.w3.org/XML/1998/namespace}lang", "en").lower()
    if not language.startswith("en"):
        return Drop("not_english")
    title = meta.find("title-group/article-title")
    sections = (*_abstract(meta), *_body(article.find("body")))
    if not sections:
        return Drop("no_text")
    text = "\n\n".join(f"{section.label}\n{section.text}" if section.label else section.text for section in sections)
    pmid = ids.get("pmid", "")
    group = pmid if pmid.isascii() and pmid.isdigit() else f"PMC{number}"
    return Passage(f"pmc:PMC{number}", group, "pmc", text, "" if title is None else _line(title), sections)


def _is_id(node: Any) -> bool:
    return node.tag == "article-id"


def _abstract(meta: Any) -> Iterator[Section]:
    for abstract in meta.iterfind("abstract"):
        if abstract.get("abstract-type") in (None, "structured"):  # others: graphical, for the public, teasers
            yield from _sections(abstract, "Abstract", "ABSTRACT")


def _body(body: Any) -> Iterator[Section]:
    if body is not None:
        yield from _sections(body, None, None)


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
            block = child.tag in BLOCKS
            if block:
                yield "\n"
            yield from _pieces(child)
            if block:
                yield "\n"
        if child.tail:
            yield SPACES.sub(" ", child.tail)
