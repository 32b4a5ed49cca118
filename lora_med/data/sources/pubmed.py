"""PubMed abstracts from NLM's XML: baseline files, then update files, plain or gz, one Passage per article.

A search saved as `.nbib` (the MEDLINE format, formats/pubmed/medline_tags.py) gives the same passages.

Format: https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd. License: NLM's terms of use; publishers may hold
copyright in abstracts, so share PMIDs and hashes, not texts. Courtesy of the U.S. National Library of
Medicine.

The newest version of an article wins; at equal versions the later file wins. `DeleteCitation` removes an article. While
streaming, two passes over the files need little memory: the first stores one number per article. The DTD that the files
name is never fetched, and only XML's own entities are expanded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from lora_med.data.formats.pubmed.medline_tags import (
    MedlineRecord,
    is_medline,
    medline_outcome,
    medline_pmid,
    medline_records,
)
from lora_med.data.formats.pubmed.pubmed_articles import Cut, Lines, Unusual, has_plain_header, identity, split_articles
from lora_med.data.formats.pubmed.pubmed_fast import read_article
from lora_med.data.formats.pubmed.pubmed_xml import outcome_of, passage
from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions
from lora_med.data.scanning.file_steps import Deletion, Entry, Step
from lora_med.data.splitting.compact import NumberTable
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

ROOTS = ("PubmedArticleSet", "MedlineCitationSet", "PubmedBookArticleSet")
ARTICLES = ("MedlineCitation", "BookDocument")
SHELLS = ("PubmedArticle", "PubmedBookArticle")
SAFE: dict[str, Any] = {"no_network": True, "resolve_entities": False, "remove_comments": True, "remove_pis": True}
FILE_NAME = re.compile(r"(?:pubmed|medline)(\d{2})n(\d+)\.xml(?:\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Reader:
    """What to read from a file: only the articles' versions, or their texts too."""

    texts: bool
    keep_retracted: bool = False


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The current articles of the files; each pass reads them again. Files with NLM's names are sorted by number.

    Drops: superseded, deleted, retracted, retraction_notice, not_english, no_abstract, bad.
    """
    paths = in_order([item for item in inputs if isinstance(item, Path)])
    latest: list[NumberTable] = []  # one, after the first pass

    def steps() -> Iterator[Step]:
        return _steps(paths, _Reader(True, options.keep_retracted))

    def again() -> Iterator[Outcome]:
        if not options.streaming:  # the caller holds the records in memory anyway: one pass is enough
            steps_in_memory = list(steps())
            return _current_versions(steps_in_memory, _latest_versions(steps_in_memory))
        if not latest:
            latest.append(_latest_versions(_steps(paths, _Reader(False))))
        return _current_versions(steps(), latest[0])

    return Again(again)


def steps(path: Path, options: ReadOptions) -> Iterator[Step]:
    """The articles and deletions of one file, superseded ones too; what they are depends on no other file."""
    return _steps([path], _Reader(True, options.keep_retracted))


def in_order(paths: Sequence[Path]) -> list[Path]:
    """The files in NLM's order, year then number, if every name is NLM's; else in the given order."""
    numbers = [FILE_NAME.fullmatch(path.name) for path in paths]
    if not all(numbers):
        return list(paths)
    keyed = [((int(match[1]), int(match[2])), path) for match, path in zip(numbers, paths, strict=True) if match]
    return [path for _, path in sorted(keyed, key=lambda item: item[0])]


def _latest_versions(steps: Iterable[Step]) -> NumberTable:
    """PMID -> position of its current version in reading order, times two, plus one if it was deleted later."""
    state = NumberTable()
    version: dict[int, int] = {}  # only for articles beyond version 1, which are few
    position = 0
    for step in steps:
        if isinstance(step, Deletion):
            if (previous := state.get(step.key)) >= 0:
                state[step.key] = previous | 1
        elif isinstance(step, Entry):
            previous = state.get(step.key)
            if previous < 0 or previous & 1 or step.version >= version.get(step.key, 1):
                state[step.key] = position << 1
                version.pop(step.key, None)
                if step.version > 1:
                    version[step.key] = step.version
            position += 1
    return state


def _current_versions(steps: Iterable[Step], latest: NumberTable) -> Iterator[Outcome]:
    position = 0
    for step in steps:
        if isinstance(step, Drop):
            yield step
        elif isinstance(step, Entry):
            state = latest.get(step.key)
            if state >> 1 != position:
                yield Drop("superseded")
            elif state & 1:
                yield Drop("deleted")
            elif step.outcome is not None:
                yield step.outcome
            position += 1


def _steps(paths: Sequence[Path], reader: _Reader) -> Iterator[Step]:
    for path in paths:
        try:
            with archive_errors(path):
                yield from _file_steps(path, reader)
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


def _file_steps(path: Path, reader: _Reader) -> Iterator[Step]:
    done, tagged = 0, False
    with suppress(DataError), archive_errors(path), open_stream(path) as stream:
        tagged = is_medline(stream)
    if tagged:
        with open_stream(path) as stream:
            for record in medline_records(stream, str(path)):
                yield _medline_step(record, path, reader)
        return
    # A truncated file, or unusual content between articles: the parser reads as far as it can and reports the line.
    with open_stream(path) as stream, closing(Lines(path)) as lines, suppress(Unusual, DataError), archive_errors(path):
        if not has_plain_header(stream):
            raise Unusual
        for cut in split_articles(stream):
            for step in _cut_steps(cut, path, reader, lines):
                yield step
                done += 1
        return
    with open_stream(path) as stream:
        yield from islice(_parsed_steps(stream, path, reader), done, None)


def _medline_step(record: MedlineRecord, path: Path, reader: _Reader) -> Step:
    """The article of a record in the MEDLINE format, which has no versions."""
    pmid, where = medline_pmid(record), f"{path}:{record.line}"
    if pmid is None:
        fix = "save the search with Send to, Citation manager (.nbib; RIS has no PMIDs), or set data.skip_bad=true"
        return Drop("bad", DataError("a record without a PMID of digits", where=where, fix=fix))
    if not reader.texts:
        return Entry(pmid, 1, None)
    return Entry(pmid, 1, medline_outcome(pmid, record, where, keep_retracted=reader.keep_retracted))


def _cut_steps(cut: Cut, path: Path, reader: _Reader, lines: Lines) -> Iterable[Step]:
    """The article or deletions of a cut; the parser reads them if they are not exactly in NLM's form."""
    try:
        pmid, version = identity(cut.content)
        fields = read_article(cut.content, version) if reader.texts else None
    except Unusual:
        return _parsed_cut(cut, path, reader, lines)
    outcome = passage(pmid, fields.title, fields.sections, fields.about) if fields else None
    return (Entry(pmid, version, outcome),)


def _parsed_cut(cut: Cut, path: Path, reader: _Reader, lines: Lines) -> Iterator[Step]:
    try:
        root = etree.fromstring(cut.content, etree.XMLParser(**SAFE))
    except etree.XMLSyntaxError:
        raise Unusual from None
    for element in root.iter(*ARTICLES, "DeleteCitation", "DeleteDocument"):
        if element.tag in ARTICLES:
            yield _entry(element, reader, lambda line: f"{path}:{lines.at(cut.offset) + line - 1}")
        else:
            yield from _deletions(element)


def _parsed_steps(stream: BinaryIO, path: Path, reader: _Reader) -> Iterator[Step]:
    tags = (*ARTICLES, *SHELLS, "DeleteCitation", "DeleteDocument")
    parser = etree.iterparse(stream, events=("end",), tag=tags, load_dtd=False, **SAFE)
    for _, element in parser:
        if element.tag in ARTICLES:
            yield _entry(element, reader, lambda line: f"{path}:{line}")
        elif element.tag not in SHELLS:
            yield from _deletions(element)
        parent = element.getparent()
        if parent is None or parent.getparent() is None:  # finished: memory stays at one article
            element.clear()
            while parent is not None and element.getprevious() is not None:
                del parent[0]
    root = parser.root
    if root is None or root.tag not in (*ROOTS, *SHELLS, *ARTICLES):
        raise DataError(
            f"not a PubMed file: the outermost element is none of {', '.join(ROOTS)}",
            where=str(path),
            fix="give files of https://ftp.ncbi.nlm.nih.gov/pubmed/, or the XML or .nbib that PubMed exports",
        )


def _deletions(element: Any) -> Iterator[Deletion]:
    for node in element.iterfind("PMID"):
        text = (node.text or "").strip()
        if text.isascii() and text.isdigit():
            yield Deletion(int(text))


def _entry(citation: Any, reader: _Reader, where: Callable[[int], str]) -> Step:
    """The article of an element; `where` maps a line of the parsed text to its position in the file."""
    node = citation.find("PMID")
    text = (node.text or "").strip() if node is not None else ""
    version = node.get("Version", "1") if node is not None else "1"
    if not (text.isascii() and text.isdigit() and version.isascii() and version.isdigit()):
        return Drop(
            "bad",
            DataError(
                "an article without a PMID of digits and a version of digits",
                where=where(citation.sourceline),
                fix="restore the file, or set data.skip_bad=true",
            ),
        )
    if not reader.texts:
        return Entry(int(text), int(version), None)
    try:
        return Entry(int(text), int(version), outcome_of(citation, int(version), reader.keep_retracted))
    except DataError as error:
        error.where = f"{where(citation.sourceline)}, PMID {int(text)}"
        return Entry(int(text), int(version), Drop("bad", error))
