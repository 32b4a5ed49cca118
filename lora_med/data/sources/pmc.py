"""Journal articles in JATS (.nxml, .xml), one Passage each: title, abstract, body, without citation markers.

Articles of PubMed Central or of any publisher (PLOS, eLife, SciELO): single files, sets of articles, the envelopes of
an OAI service, and zip or tar.gz packages. Namespaces and their prefixes do not count. An article is named by its
number in PubMed Central, else its PMID, DOI or publisher's identifier (formats/jats/article_identity.py). A section
of the body is a Section with its own title as label, and so is a subsection; paragraphs are lines
(formats/jats/article_text.py).

Sub-articles and responses (reviews, decision letters, replies, translations) are left out and counted within their
article. Of an article in another language its English translation, a sub-article, is read instead. Format:
https://jats.nlm.nih.gov. License: each article's own, in its <license>; most of PMC's Open Access subset is CC BY.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lora_med.data.formats.archives import FIX, Document, outcomes_of, xml_root
from lora_med.data.formats.jats.article_identity import (
    LANGUAGE,
    articles_of,
    identifiers_of,
    identity_of,
    is_english,
    without_namespaces,
)
from lora_med.data.formats.jats.article_text import sections_of, title_of
from lora_med.data.outcome import Again, Drop, Input, Outcome, PartDrop, ReadOptions
from lora_med.data.record import Passage, digest
from lora_med.errors import DataError

SUFFIXES = (".nxml", ".xml")
MOST_TYPES = 6  # of identifiers in a message
TYPE_NAME = re.compile(r"[\w.-]{1,30}")


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The articles of the files. Drops: retracted, retraction_notice, not_english, no_text, deleted; with an error:
    bad, damaged_file, unsupported_format. Left out within an article: sub_article, response. Of several versions of
    an article the first that is read is kept; others are dropped as other_version."""
    outcomes = outcomes_of(inputs, SUFFIXES, lambda document: _articles(document, options.keep_retracted))
    return Again(lambda: _first_versions(outcomes))


def _first_versions(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    texts: dict[
        int, int
    ] = {}  # digest of a uid -> digest of its text; an equal text is left to be counted as duplicate
    is_first = True
    for outcome in outcomes:
        if isinstance(outcome, Passage):
            text = digest(outcome.text)
            is_first = texts.setdefault(digest(outcome.uid), text) == text
            yield outcome if is_first else Drop("other_version")
        elif is_first or not isinstance(outcome, PartDrop):
            yield outcome


def _articles(document: Document, keep_retracted: bool) -> Iterator[Outcome]:
    root = without_namespaces(xml_root(document))
    deleted = [header for header in root.iter("header") if header.get("status") == "deleted"]  # of an OAI service
    articles = list(articles_of(root))
    if not articles and not deleted:
        answer = root.find("error") if root.tag == "OAI-PMH" else None
        code = "" if answer is None else answer.get("code") or ""
        answered = f"; the OAI service answered {code}" if TYPE_NAME.fullmatch(code) else ""
        raise DataError(f"expected an article in JATS, with a front{answered}", where=f"{document.where}:1", fix=FIX)
    for _ in deleted:
        yield Drop("deleted")
    for article in articles:
        yield from _outcomes(article, keep_retracted, document.where)


def _outcomes(article: Any, keep_retracted: bool, file: str) -> Iterator[Outcome]:
    translation = None if is_english(article) else _english_translation(article)
    outcome = _outcome(article, translation, keep_retracted, file)
    yield outcome
    if isinstance(outcome, Passage):
        for part in article.iterchildren("sub-article", "response"):
            if part is not translation:
                yield PartDrop(part.tag.replace("-", "_"), f"{file}, {outcome.uid}")


def _outcome(article: Any, translation: Any, keep_retracted: bool, file: str) -> Outcome:
    """The passage of an article, or of its translation where it has one that is read instead; or why it is dropped."""
    identifiers = identifiers_of(article)
    identity = identity_of(article, identifiers)
    meta = article.find("front/article-meta")
    if identity is None or meta is None:
        types = [name if TYPE_NAME.fullmatch(name) else "another type" for name in identifiers][:MOST_TYPES]
        what = "expected an article-id of the type pmc, pmid, doi or publisher-id"
        what += f"; those of usable form are missing among: {', '.join(types)}" if types else "; the article has none"
        return Drop("bad", DataError(what, where=f"{file}:{article.sourceline}", fix=FIX))
    links = {node.get("related-article-type") for node in meta.iterfind("related-article")}
    if article.get("article-type") == "retraction":
        return Drop("retraction_notice")
    if not keep_retracted and links & {"retraction-forward", "retracted-by"}:
        return Drop("retracted")
    if not is_english(article):
        if translation is None:
            return Drop("not_english")
        article, meta = translation, translation.find("front-stub")
    sections = sections_of(meta, article)
    if not sections:
        return Drop("no_text")
    text = "\n\n".join(f"{section.label}\n{section.text}" if section.label else section.text for section in sections)
    return Passage(identity.uid, identity.group, "pmc", text, title_of(meta), sections)


def _english_translation(article: Any) -> Any:
    """The English translation that an article holds, or None."""
    for part in article.iterfind("sub-article"):
        named = (part.get(LANGUAGE) or "").lower()
        if part.get("article-type") == "translation" and named.startswith("en") and part.find("front-stub") is not None:
            return part
    return None
