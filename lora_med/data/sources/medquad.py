"""MedQuAD: questions and answers from twelve sites of the US National Institutes of Health, one XML file for each page.

The root is `Document`, `doc` or `DiseaseFile`, and element names come in two spellings. Two thirds of the answers are
empty by design (folders 10 to 12, removed for copyright) and are dropped as empty_answer. The group is the page, which
several files may share with its identifiers; site, file and number name a question. License CC BY 4.0. Ben Abacha and
Demner-Fushman 2019, https://doi.org/10.1186/s12859-019-3119-4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lora_med.data.formats.archives import FIX, Document, outcomes_of, xml_root
from lora_med.data.outcome import Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Question
from lora_med.errors import DataError

ROOTS = {"Document": ("id", "source"), "doc": ("docid", "corpus"), "DiseaseFile": ("fid", "source")}
BLANKS = re.compile(r"[ \t\u00a0]+")
EMPTY_LINES = re.compile(r"\n(?: ?\n)+ ?")


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The questions of the files. Drops: empty_answer; with an error: bad, damaged_file."""
    return outcomes_of(inputs, (".xml",), _page)


def _page(document: Document) -> Iterator[Outcome]:
    root = xml_root(document)
    if root.tag not in ROOTS or not all(root.get(name, "").strip() for name in ROOTS[root.tag]):
        expected = "; ".join(f"{tag} with {' and '.join(names)}" for tag, names in ROOTS.items())
        raise DataError(f"expected a root of MedQuAD: {expected}", where=f"{document.where}:1", fix=FIX)
    key, site = (root.get(name, "").strip() for name in ROOTS[root.tag])
    name = f"{site}:{document.name.split('.')[0]}"
    for pair in root.iter("QAPair", "pair"):
        yield _question(pair, f"{site}:{key}", name, document.where)


def _question(pair: Any, group: str, name: str, file: str) -> Outcome:
    question, answer = (_element(pair, tag) for tag in ("question", "answer"))
    where = f"{file}:{pair.sourceline}"
    number = "" if question is None else question.get("qid", "").strip().rpartition("-")[2]
    if question is None or answer is None or not number or not _text(question):
        return Drop("bad", DataError("expected a question with a qid, and an answer", where=where, fix=FIX))
    if not _text(answer):
        return Drop("empty_answer")
    return Question(f"medquad:{name}-{number}", group, "medquad", _text(question), _text(answer))


def _element(pair: Any, name: str) -> Any:
    return next((child for child in pair if child.tag in (name, name.capitalize())), None)


def _text(element: Any) -> str:
    """All text, without the layout's indentation and with its line breaks."""
    lines = (BLANKS.sub(" ", line).strip() for line in "".join(element.itertext()).split("\n"))
    return EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()
