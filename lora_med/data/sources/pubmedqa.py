"""PubMedQA: a yes/no/maybe question, the abstract it was drawn from, and the conclusion as explanation.

Both shapes are read: the original `ori_pqal.json` (PMID -> QUESTION, CONTEXTS, final_decision, LONG_ANSWER) and rows as
on the Hub, `qiaojin/PubMedQA:pqa_labeled` (pubid, question, context{contexts}, long_answer, final_decision) in JSON,
JSON lines or Parquet. License MIT; Jin et al. 2019, https://arxiv.org/abs/1909.06146. The conclusion (LONG_ANSWER)
answers the question, so it is separate, as `explanation`, and never shown with the contexts.
data/splitting/pubmedqa_folds.py has the official split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_med.data.formats.row_fields import Wrong, optional_text_of, outcomes, text_of
from lora_med.data.formats.tables import (
    RowOutcome,
    TableRow,
    bad,
    first_letter,
    format_of,
    is_encodable,
    load_json,
    rows,
)
from lora_med.data.outcome import Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Question
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

OPTIONS = ("yes", "no", "maybe")


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The questions of the inputs. Drops with an error: bad, and those of the row formats."""
    return outcomes(inputs, _question, _rows)


def _rows(item: Input) -> Iterator[RowOutcome]:
    if not isinstance(item, Path) or format_of(item) != "json":
        yield from rows(item)
        return
    try:
        with archive_errors(item), open_stream(item) as stream:
            head = first_letter(stream)
            content = load_json(stream, item) if head == "{" else None
    except DataError as error:
        yield Drop("damaged_file", error)
        return
    if content is None:
        yield from rows(item)
    elif "question" in content or "QUESTION" in content:
        yield TableRow(str(item), 1, content)
    else:
        for number, (pmid, values) in enumerate(content.items(), 1):
            where = f"{item}, item {number}"
            if isinstance(values, dict):
                yield TableRow(where, number, {"pubid": pmid, **values})
            else:
                yield bad("bad", "expected an object with QUESTION, CONTEXTS and final_decision", where)


def _question(row: Mapping[str, Any], position: str) -> Question:
    values = {name.lower(): value for name, value in row.items()}
    pmid = str(values.get("pubid", values.get("pmid", ""))).strip()
    if not (pmid.isascii() and pmid.isdigit()):
        raise Wrong("expected a PMID of digits in pubid (or as the item's key)")
    answer = text_of(values, "final_decision").strip().lower()
    if answer not in OPTIONS:
        raise Wrong("final_decision: expected yes, no or maybe")
    return Question(
        f"pmid:{pmid}",
        pmid,
        "pubmedqa",
        text_of(values, "question"),
        answer,
        _contexts(values),
        OPTIONS,
        optional_text_of(values, "long_answer"),
    )


def _contexts(values: Mapping[str, Any]) -> tuple[str, ...]:
    nested = values.get("context")
    contexts = values.get("contexts", nested.get("contexts") if isinstance(nested, dict) else None)
    if not isinstance(contexts, list) or not all(isinstance(text, str) and is_encodable(text) for text in contexts):
        raise Wrong("contexts: expected a list of texts")
    return tuple(contexts)
