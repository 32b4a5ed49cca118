"""PubMedQA: a yes/no/maybe question, the abstract it was drawn from, and the conclusion as explanation.

Both shapes are read: the original `ori_pqal.json` (PMID -> QUESTION, CONTEXTS, final_decision, LONG_ANSWER) and rows as
on the Hub, `qiaojin/PubMedQA:pqa_labeled` (pubid, question, context{contexts}, long_answer, final_decision) in JSON,
JSON lines or Parquet. License MIT; Jin et al. 2019, https://arxiv.org/abs/1909.06146. The conclusion (LONG_ANSWER)
answers the question, so it is separate, as `explanation`, and never shown with the contexts.
data/splitting/pubmedqa_folds.py has the official split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.data.formats.row_fields import Wrong, optional_text_of, outcomes, text_of
from lora_med.data.formats.tables import is_encodable
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Question

OPTIONS = ("yes", "no", "maybe")


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The questions of the inputs. Drops with an error: bad, and those of the row formats."""
    return outcomes(inputs, _question, options.table)


def _question(row: Mapping[str, Any], position: str) -> Question:
    values = {name.lower(): value for name, value in row.items()}
    pmid = str(next((values[name] for name in ("pubid", "pmid", "id") if name in values), "")).strip()
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
