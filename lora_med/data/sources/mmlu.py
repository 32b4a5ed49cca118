"""MMLU's medical subjects: exam questions with four options, a file for each subject and split.

Two shapes are read. The original CSV has no header (question, A, B, C, D, the right letter) and its subject in the
file's name (`anatomy_test.csv`); a copy with a header of these names is read too. The other shape is rows as on the
Hub, `cais/mmlu` (question, subject, choices, answer from 0). The files are the splits: `_dev` is training, with five
questions for each subject for k-shot prompts, `_val` is validation and `_test` is test. Six of the 57 subjects count as
medical: anatomy, clinical_knowledge, college_biology, college_medicine, medical_genetics, professional_medicine; name
their files. License MIT. Hendrycks et al. 2021, https://arxiv.org/abs/2009.03300.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_med.data.formats.row_fields import Wrong, optional_text_of, outcomes, stem, text_of
from lora_med.data.formats.tables import RowOutcome, TableRow, format_of, rows
from lora_med.data.outcome import Input, Outcome, ReadOptions, TableFormat
from lora_med.data.record import Question

LETTERS = "ABCD"
HEADER = ("question", *LETTERS, "answer")
SPLIT = re.compile(r"[_-](?:auxiliary_train|train|dev|val|validation|test)$", re.IGNORECASE)


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The questions of the inputs. Drops with an error: bad, and those of the row formats."""
    return outcomes(inputs, _question, options.table, _rows)


def _rows(item: Input, table: TableFormat) -> Iterator[RowOutcome]:
    if not isinstance(item, Path):
        yield from rows(item, table)
        return
    subject = SPLIT.sub("", item.name.split(".")[0])
    header = HEADER if format_of(item) in ("csv", "tsv") and not _has_header(item, table) else None
    for row in rows(item, table, header):
        yield (
            TableRow(row.where, row.number, {"subject": subject, **_named(row.values)})
            if isinstance(row, TableRow)
            else row
        )


def _has_header(item: Path, table: TableFormat) -> bool:
    """Whether the first line of a CSV names the columns."""
    first = next(iter(rows(item, table)), None)
    return isinstance(first, TableRow) and {"question", "answer"} <= {name.casefold() for name in first.values}


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the names of HEADER, whatever the case of theirs."""
    ours = {name.casefold(): name for name in HEADER}
    return {ours.get(name.casefold(), name): value for name, value in values.items()}


def _question(values: Mapping[str, Any], position: str) -> Question:
    question, answer = text_of(values, "question"), values.get("answer")
    if "choices" in values:
        texts = values["choices"]
        if not isinstance(texts, list) or len(texts) != len(LETTERS):
            raise Wrong(f"choices: expected a list of {len(LETTERS)} texts")
        choices = tuple(text_of({letter: text}, letter) for letter, text in zip(LETTERS, texts, strict=True))
        right = answer if isinstance(answer, int) and not isinstance(answer, bool) else -1
    else:
        choices = tuple(text_of(values, letter) for letter in LETTERS)
        right = LETTERS.find(answer.strip()) if isinstance(answer, str) and len(answer.strip()) == 1 else -1
    if not 0 <= right < len(choices):
        raise Wrong(f"answer: expected one of the letters {', '.join(LETTERS)}, or on the Hub a number from 0 to 3")
    subject = optional_text_of(values, "subject")
    return Question(
        f"mmlu:{position}",
        stem(question, *choices),
        "mmlu",
        question,
        choices[right],
        (),
        choices,
        right=right,
        subject=subject,
    )
