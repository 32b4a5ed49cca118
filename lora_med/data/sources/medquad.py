"""MedQuAD: questions and answers from twelve sites of the US National Institutes of Health, one XML file a page.

The root is `Document`, `doc` or `DiseaseFile`, and element names come in two spellings. Two thirds of the answers are
empty by design (folders 10 to 12, taken out for copyright): dropped as empty_answer. The page, which several files may
share with its identifiers, is the group; site, file and number name a question. Licence CC BY 4.0. Ben Abacha and
Demner-Fushman 2019, https://doi.org/10.1186/s12859-019-3119-4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Question
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

ROOTS = {"Document": ("id", "source"), "doc": ("docid", "corpus"), "DiseaseFile": ("fid", "source")}
FIX = "restore the file, or set data.skip_bad=true (--skip-bad)"
LONGEST_FILE = 1 << 24
BLANKS = re.compile(r"[ \t\u00a0]+")
EMPTY_LINES = re.compile(r"\n(?: ?\n)+ ?")


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The questions of the files. Drops: empty_answer; with an error: bad, damaged_file."""

    def again() -> Iterator[Outcome]:
        for path in inputs:
            if isinstance(path, Path):
                yield from _file(path)

    return Again(again)


def _file(path: Path) -> Iterator[Outcome]:
    try:
        with archive_errors(path), open_stream(path) as stream:
            content = stream.read(LONGEST_FILE + 1)
        if len(content) > LONGEST_FILE:
            raise DataError(f"a page of more than {LONGEST_FILE:,} bytes", where=str(path), fix=FIX)
        root = _root(content, path)
    except DataError as error:
        yield Drop("damaged_file", error)
        return
    key, site = (root.get(name, "").strip() for name in ROOTS[root.tag])
    document = f"{site}:{key}"
    name = f"{site}:{path.name.split('.')[0]}"
    for pair in root.iter("QAPair", "pair"):
        yield _question(pair, document, name, path)


def _root(content: bytes, path: Path) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise DataError("the file is not well-formed XML, or ends early", where=f"{path}:{line}", fix=FIX) from None
    if root.tag not in ROOTS or not all(root.get(name, "").strip() for name in ROOTS[root.tag]):
        wanted = "; ".join(f"{tag} with {' and '.join(names)}" for tag, names in ROOTS.items())
        raise DataError(f"expected a root of MedQuAD: {wanted}", where=f"{path}:1", fix=FIX)
    return root


def _question(pair: Any, document: str, name: str, path: Path) -> Outcome:
    asked, answered = (_element(pair, name) for name in ("question", "answer"))
    where = f"{path}:{pair.sourceline}"
    number = "" if asked is None else asked.get("qid", "").strip().rpartition("-")[2]
    if asked is None or answered is None or not number or not _text(asked):
        return Drop("bad", DataError("expected a question with a qid, and an answer", where=where, fix=FIX))
    if not _text(answered):
        return Drop("empty_answer")
    return Question(f"medquad:{name}-{number}", document, "medquad", _text(asked), _text(answered))


def _element(pair: Any, name: str) -> Any:
    return next((child for child in pair if child.tag in (name, name.capitalize())), None)


def _text(element: Any) -> str:
    """All text, the layout's indentation taken out and its line breaks kept."""
    lines = (BLANKS.sub(" ", line).strip() for line in "".join(element.itertext()).split("\n"))
    return EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()
