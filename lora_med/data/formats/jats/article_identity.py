"""Which article a JATS element is: its identifiers, whoever published it, and the articles within an envelope.

An article is named by its number in PubMed Central, else its PMID, else its DOI, else the publisher's own identifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

NAMESPACED = etree.XPath("//*[namespace-uri() and namespace-uri() != 'http://www.w3.org/1998/Math/MathML']")
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
PMC_TYPES = ("pmc", "pmcid", "pmc-id", "pmcaid")
PUBLISHER_TYPES = ("publisher-id", "publisher-manuscript", "manuscript", "publisher")
PMC_NUMBER = re.compile(r"(?:PMC)? ?(\d{1,12})", re.IGNORECASE)
PMID = re.compile(r"\d{1,9}")
DOI = re.compile(r"(?:doi:\s{0,9}|(?:https?://)?(?:dx\.)?doi\.org/)?(10\.[\d.]{1,20}/\S{1,500})", re.IGNORECASE)
BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class ArticleIdentity:
    """An article's `uid`, and the `group` of all that is made of the same article: its PMID where it has one."""

    uid: str
    group: str


def without_namespaces(root: Any) -> Any:
    """`root` with the namespaces taken off all element names but those of MathML, whatever their prefixes were."""
    for node in NAMESPACED(root):
        node.tag = node.tag.rpartition("}")[2]
    return root


def articles_of(root: Any) -> Iterator[Any]:
    """The articles at or below `root`: of one article, a set, or an envelope such as that of an OAI service."""
    return (article for article in root.iter("article") if article.find("front") is not None)


def identifiers_of(article: Any) -> dict[str, str]:
    """The identifiers of an article by their type, in lower case; of two of one type the first."""
    identifiers: dict[str, str] = {}
    for node in article.iterfind("front/article-meta/article-id"):
        value = BLANKS.sub(" ", "".join(node.itertext())).strip()
        if value:
            identifiers.setdefault((node.get("pub-id-type") or "none").strip().lower(), value)
    return identifiers


def identity_of(article: Any, identifiers: Mapping[str, str]) -> ArticleIdentity | None:
    """Which article it is, or None where no identifier is of use."""
    number = next(filter(None, (PMC_NUMBER.fullmatch(identifiers.get(kind, "")) for kind in PMC_TYPES)), None)
    pmid = PMID.fullmatch(identifiers.get("pmid", ""))
    doi = DOI.fullmatch(identifiers.get("doi", ""))
    if number is not None:
        return ArticleIdentity(f"pmc:PMC{number[1]}", pmid[0] if pmid else f"PMC{number[1]}")
    if pmid is not None:
        return ArticleIdentity(f"pmid:{pmid[0]}", pmid[0])
    if doi is not None:
        return ArticleIdentity(f"doi:{doi[1].lower()}", f"doi:{doi[1].lower()}")
    publisher_id = next(filter(None, (identifiers.get(kind) for kind in PUBLISHER_TYPES)), None)
    if publisher_id is None:
        return None
    name = f"publisher-id:{_journal(article)}/{publisher_id}"
    return ArticleIdentity(name, name)


def _journal(article: Any) -> str:
    """The journal, which makes a publisher's identifier unique: two journals may both have an article 12."""
    for path in ("journal-id", "issn", ".//journal-title"):
        node = article.find(f"front/journal-meta/{path}")
        text = "" if node is None else " ".join("".join(node.itertext()).split())
        if text:
            return text
    return "journal"


def is_english(node: Any) -> bool:
    """Whether an article or a part of one is in English; one that names no language is."""
    return node.get(LANGUAGE, "en").lower().startswith("en")
