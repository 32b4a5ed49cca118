"""A Passage from a PubMed article's XML element: its title and every section with its label; or why it is dropped."""

from __future__ import annotations

from typing import Any

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from lora_med.data.formats.pubmed.pubmed_fast import NOTICE, RETRACTED, SPACES, heading, labeled, year_in
from lora_med.data.outcome import Drop, Outcome
from lora_med.data.record import Bibliography, Passage, Section, Term
from lora_med.errors import DataError

NO_TITLE = ("not available", "in process citation")


def outcome_of(citation: Any, version: int, keep_retracted: bool) -> Outcome:
    """The passage of a MedlineCitation or BookDocument, or a drop with the reason."""
    article = citation if citation.tag == "BookDocument" else citation.find("Article")
    if article is None:
        return Drop("no_abstract")
    about = _about(citation, article, version)
    kinds = {name for term in about.publication_types for name in (term.ui, term.name)}
    links = {node.get("RefType") for node in citation.iterfind("CommentsCorrectionsList/CommentsCorrections")}
    if not keep_retracted and (kinds.intersection(RETRACTED) or "RetractionIn" in links):
        return Drop("retracted")
    if kinds.intersection(NOTICE) or "RetractionOf" in links:
        return Drop("retraction_notice")
    parts = [
        (heading(node.get("Label", ""), node.get("NlmCategory", "")), _text(node))
        for node in article.iterfind("Abstract/AbstractText")
    ]
    return passage(int(citation.findtext("PMID")), _title(article), labeled(parts), about)


def passage(pmid: int, title: str, sections: tuple[Section, ...], about: Bibliography) -> Outcome:
    """The passage of an article; a drop if it is not in English or has no abstract. Retractions are excluded before."""
    if about.languages and "eng" not in about.languages:
        return Drop("not_english")
    if not sections:
        return Drop("no_abstract")
    text = "\n".join(f"{part.label}: {part.text}" if part.label else part.text for part in sections)
    return Passage(f"pmid:{pmid}", str(pmid), "pubmed", text, bare_title(title), sections, about)


def _about(citation: Any, article: Any, version: int) -> Bibliography:
    types = article.findall("PublicationTypeList/PublicationType") + article.findall("PublicationType")
    container = article.find("Journal") if article is not citation else article.find("Book")
    date = None if container is None else container.find(".//PubDate")
    name = None if container is None else container.find("Title" if container.tag == "Journal" else "BookTitle")
    return Bibliography(
        version,
        None if date is None else year_in(date.findtext("Year") or date.findtext("MedlineDate") or ""),
        "" if name is None else _text(name),
        tuple((node.text or "").strip().lower() for node in article.iterfind("Language")),
        tuple(map(_term, types)),
        tuple(map(_term, citation.iterfind("MeshHeadingList/MeshHeading/DescriptorName"))),
    )


def _term(node: Any) -> Term:
    return Term(node.get("UI", ""), _text(node))


def _title(article: Any) -> str:
    node = article.find("ArticleTitle")
    if node is None or not (title := _text(node)):
        node = article.find("Book/BookTitle")
        title = _text(node) if node is not None else ""
    return title


def bare_title(title: str) -> str:
    """The title; without NLM's brackets around a translated one, and empty for NLM's stand-in for a missing one."""
    bare = title.removesuffix(".")
    if bare.startswith("[") and bare.endswith("]") and _one_pair(bare):
        bare = bare[1:-1].strip()
        title = "" if bare.rstrip(".").lower() in NO_TITLE else bare
    return title


def _one_pair(text: str) -> bool:
    """Whether the bracket that opens `text` is the one that closes it."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if depth == 0:
            return position == len(text) - 1
    return False


def _text(node: Any) -> str:
    """All text below `node`, mark-up and formulas included, with the layout's white space as single spaces."""
    if len(node) == 0:
        return SPACES.sub(" ", node.text or "").strip(" ")
    if next(node.iter(etree.Entity), None) is not None:
        raise DataError(
            "the text uses an entity that XML does not define", fix="restore the file, or set data.skip_bad=true"
        )
    return SPACES.sub(" ", "".join(node.itertext())).strip(" ")
