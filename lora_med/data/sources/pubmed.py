"""PubMed abstracts from NLM's XML: baseline files, then update files, plain or gz, one Passage per article.

Format: https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd. Licence: NLM's terms of use; publishers may hold
copyright in abstracts, so keep PMIDs and hashes in what you share, not texts. Courtesy of the U.S. National Library of
Medicine.

The newest version of an article is kept, a later file winning at equal version; `DeleteCitation` removes. Streaming,
two passes over the files do it in little memory: the first keeps one number per article. The DTD that the files name
is never fetched, and no entity is expanded but XML's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Passage, Section
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

ROOTS = ("PubmedArticleSet", "MedlineCitationSet", "PubmedBookArticleSet")
ARTICLES = ("MedlineCitation", "BookDocument")
SHELLS = ("PubmedArticle", "PubmedBookArticle")
FILE_NAME = re.compile(r"(?:pubmed|medline)(\d{2})n(\d+)\.xml(?:\.gz)?", re.IGNORECASE)
TRUNCATED = re.compile(r"\s*\(ABSTRACT TRUNCATED(?: AT \d+ WORDS)?\)\s*$", re.IGNORECASE)
SPACES = re.compile(r"[\t\r\n][ \t\r\n]*| [ \t\r\n]+")  # of the layout, single spaces apart, which may stay
NO_TITLE = ("not available", "in process citation")
RETRACTED, NOTICE = ("D016441", "Retracted Publication"), ("D016440", "Retraction of Publication")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One article as it stands in a file, in reading order; `outcome` is None where only versions are wanted."""

    pmid: int
    version: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class _Deletion:
    pmid: int


_Step = _Entry | _Deletion | Drop


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The current articles of the files, each pass reading again; files named as NLM names them go by their number.

    Drops: superseded, deleted, retracted, retraction_notice, not_english, no_abstract, bad.
    """
    paths = in_order([item for item in inputs if isinstance(item, Path)])
    latest: dict[int, int] = {}

    def steps() -> Iterator[_Step]:
        return _steps(paths, lambda citation: _outcome(citation, options.keep_retracted))

    def again() -> Iterator[Outcome]:
        if not options.streaming:  # the caller keeps the records anyway: one pass is enough
            held = list(steps())
            return _current(held, _latest(held))
        if not latest:
            latest.update(_latest(_steps(paths, None)))
        return _current(steps(), latest)

    return Again(again)


def in_order(paths: Sequence[Path]) -> list[Path]:
    """NLM's own order, year then number, if every file is named NLM's way; else as given."""
    numbers = [FILE_NAME.fullmatch(path.name) for path in paths]
    if not all(numbers):
        return list(paths)
    keyed = [((int(match[1]), int(match[2])), path) for match, path in zip(numbers, paths, strict=True) if match]
    return [path for _, path in sorted(keyed, key=lambda item: item[0])]


def _latest(steps: Iterable[_Step]) -> dict[int, int]:
    """PMID -> place of its current version in reading order, times two, plus one if deleted since."""
    state: dict[int, int] = {}
    version: dict[int, int] = {}  # only of articles beyond version 1, which are few
    place = 0
    for step in steps:
        if isinstance(step, _Deletion) and step.pmid in state:
            state[step.pmid] |= 1
        elif isinstance(step, _Entry):
            known = state.get(step.pmid)
            if known is None or known & 1 or step.version >= version.get(step.pmid, 1):
                state[step.pmid] = place << 1
                version.pop(step.pmid, None)
                if step.version > 1:
                    version[step.pmid] = step.version
            place += 1
    return state


def _current(steps: Iterable[_Step], latest: dict[int, int]) -> Iterator[Outcome]:
    place = 0
    for step in steps:
        if isinstance(step, Drop):
            yield step
        elif isinstance(step, _Entry):
            state = latest.get(step.pmid, -1)
            if state >> 1 != place:
                yield Drop("superseded")
            elif state & 1:
                yield Drop("deleted")
            elif step.outcome is not None:
                yield step.outcome
            place += 1


def _steps(paths: Sequence[Path], extract: Callable[[Any], Outcome] | None) -> Iterator[_Step]:
    for path in paths:
        try:
            with archive_errors(path):
                yield from _file_steps(path, extract)
        except etree.XMLSyntaxError as error:
            line = error.lineno or 0
            yield Drop(
                "bad",
                DataError(
                    "the file is not well-formed XML, or ends early",
                    where=f"{path}:{line}",
                    fix="download it again and compare its checksum",
                ),
            )
        except DataError as error:
            yield Drop("bad", error)


def _file_steps(path: Path, extract: Callable[[Any], Outcome] | None) -> Iterator[_Step]:
    with open_stream(path) as stream:
        parser = etree.iterparse(
            stream,
            events=("end",),
            tag=(*ARTICLES, *SHELLS, "DeleteCitation", "DeleteDocument"),
            load_dtd=False,
            no_network=True,
            resolve_entities=False,
            remove_comments=True,
            remove_pis=True,
        )
        for _, element in parser:
            if element.tag in ARTICLES:
                yield _entry(element, path, extract)
            elif element.tag not in SHELLS:
                yield from _deletions(element)
            parent = element.getparent()
            if parent is None or parent.getparent() is None:  # done with: memory stays that of one article
                element.clear()
                while parent is not None and element.getprevious() is not None:
                    del parent[0]
        root = parser.root
    if root is None or root.tag not in (*ROOTS, *SHELLS, *ARTICLES):
        raise DataError(
            f"not a PubMed file: the outermost element is none of {', '.join(ROOTS)}",
            where=str(path),
            fix="give files of https://ftp.ncbi.nlm.nih.gov/pubmed/ or the XML that PubMed exports",
        )


def _deletions(element: Any) -> Iterator[_Deletion]:
    for node in element.iterfind("PMID"):
        text = (node.text or "").strip()
        if text.isascii() and text.isdigit():
            yield _Deletion(int(text))


def _entry(citation: Any, path: Path, extract: Callable[[Any], Outcome] | None) -> _Step:
    node = citation.find("PMID")
    text = (node.text or "").strip() if node is not None else ""
    version = node.get("Version", "1") if node is not None else "1"
    if not (text.isascii() and text.isdigit() and version.isascii() and version.isdigit()):
        return Drop(
            "bad",
            DataError(
                "an article without a PMID of digits and a version of digits",
                where=f"{path}:{citation.sourceline}",
                fix="restore the file, or set data.skip_bad=true",
            ),
        )
    if extract is None:
        return _Entry(int(text), int(version), None)
    try:
        return _Entry(int(text), int(version), extract(citation))
    except DataError as error:
        error.where = f"{path}:{citation.sourceline}, PMID {int(text)}"
        return _Entry(int(text), int(version), Drop("bad", error))


def _outcome(citation: Any, keep_retracted: bool) -> Outcome:
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
    sections = tuple(_sections(article))
    if not sections:
        return Drop("no_abstract")
    pmid = str(int(citation.findtext("PMID")))
    text = "\n".join(f"{part.label}: {part.text}" if part.label else part.text for part in sections)
    return Passage(f"pmid:{pmid}", pmid, "pubmed", text, _title(article), sections)


def _sections(article: Any) -> Iterator[Section]:
    nodes = article.findall("Abstract/AbstractText")
    for number, node in enumerate(nodes, 1):
        text = _text(node)
        if number == len(nodes) and text.endswith(")"):
            text = TRUNCATED.sub("", text)
        if text:
            label = " ".join(node.get("Label", "").split())
            category = node.get("NlmCategory", "").strip() or None
            yield Section(text, None if label.upper() in ("", "UNLABELLED") else label, category)


def _title(article: Any) -> str:
    """The title; NLM's brackets around a translated one are taken off, and a stand-in for a missing one is empty."""
    node = article.find("ArticleTitle")
    if node is None or not (title := _text(node)):
        node = article.find("Book/BookTitle")
        title = _text(node) if node is not None else ""
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
