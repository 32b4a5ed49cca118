"""A PubMed article as an XML element, made a Passage: its title, every section with its label; or why it is dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from lora_med.data.medline import SPACES
from lora_med.data.outcome import Drop, Outcome
from lora_med.data.record import Passage, Section
from lora_med.errors import DataError

TRUNCATED = re.compile(r"\s*\(ABSTRACT TRUNCATED(?: AT \d+ WORDS)?\)\s*$", re.IGNORECASE)
NO_TITLE = ("not available", "in process citation")
RETRACTED, NOTICE = ("D016441", "Retracted Publication"), ("D016440", "Retraction of Publication")


def outcome_of(citation: Any, keep_retracted: bool) -> Outcome:
    article = citation if citation.tag == "BookDocument" else citation.find("Article")
    if article is None:
        return Drop("no_abstract")
    types = article.findall("PublicationTypeList/PublicationType") + article.findall("PublicationType")
    kinds = {node.get("UI") for node in types} | {(node.text or "").strip() for node in types}
    links = {node.get("RefType") for node in citation.iterfind("CommentsCorrectionsList/CommentsCorrections")}
    if not keep_retracted and (kinds.intersection(RETRACTED) or "RetractionIn" in links):
        return Drop("retracted")
    if kinds.intersection(NOTICE) or "RetractionOf" in links:
        return Drop("retraction_notice")
    languages = [(node.text or "").strip().lower() for node in article.iterfind("Language")]
    if languages and "eng" not in languages:
        return Drop("not_english")
    sections = labelled(tuple(_sections(article)))
    return passage(int(citation.findtext("PMID")), _title(article), sections) if sections else Drop("no_abstract")


def passage(pmid: int, title: str, sections: tuple[Section, ...]) -> Passage:
    text = "\n".join(f"{part.label}: {part.text}" if part.label else part.text for part in sections)
    return Passage(f"pmid:{pmid}", str(pmid), "pubmed", text, title, sections)


def _sections(article: Any) -> Iterator[tuple[str, str, str]]:
    for node in article.iterfind("Abstract/AbstractText"):
        yield node.get("Label", ""), node.get("NlmCategory", ""), _text(node)


def labelled(parts: Sequence[tuple[str, str, str]]) -> tuple[Section, ...]:
    """Sections of `(label, category, text)`; empty ones are left out, NLM's remark on truncation taken off the last."""
    found: list[Section] = []
    for number, (label, category, text) in enumerate(parts, 1):
        if number == len(parts) and text.endswith(")"):
            text = TRUNCATED.sub("", text)
        if text:
            label = " ".join(label.split()) if label else ""
            named = None if label.upper() in ("", "UNLABELLED") else label
            found.append(Section(text, named, category.strip() or None))
    return tuple(found)


def _title(article: Any) -> str:
    node = article.find("ArticleTitle")
    if node is None or not (title := _text(node)):
        node = article.find("Book/BookTitle")
        title = _text(node) if node is not None else ""
    return bare_title(title)


def bare_title(title: str) -> str:
    """The title; NLM's brackets around a translated one are taken off, and a stand-in for a missing one is empty."""
    bare = title.removesuffix(".")
    if bare.startswith("[") and bare.endswith("]") and _one_pair(bare):
        bare = bare[1:-1].strip()
        title = "" if bare.rstrip(".").lower() in NO_TITLE else bare
    return title


def _one_pair(text: str) -> bool:
    """Whether the bracket that opens `text` is the one that closes it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if depth == 0:
            return place == len(text) - 1
    return False


def _text(node: Any) -> str:
    """All text below `node`, mark-up and formulas included, white space of the layout made single spaces."""
    if len(node) == 0:
        return SPACES.sub(" ", node.text or "").strip(" ")
    if next(node.iter(etree.Entity), None) is not None:
        raise DataError(
            "the text uses an entity that XML does not define", fix="restore the file, or set data.skip_bad=true"
        )
    return SPACES.sub(" ", "".join(node.itertext())).strip(" ")
