"""MeQSum: a consumer's health question, as mailed, and an expert's summary of it in one sentence.

The published workbook (.xlsx: File, CHQ, Summary, then hundreds of empty columns), or the same columns in any format
of rows. License CC BY 4.0. Ben Abacha and Demner-Fushman 2019,
https://aclanthology.org/P19-1215. One letter may be in several rows, so the group is the question's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.data.formats.row_fields import lines, outcomes, stem, text_of
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Pair


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The questions of the inputs, each with its summary. Drops with an error: bad, and those of the row formats."""
    return outcomes(inputs, _pair, options.table)


def _pair(values: Mapping[str, Any], position: str) -> Pair:
    question, summary = lines(text_of(values, "CHQ")), lines(text_of(values, "Summary"))
    return Pair(f"meqsum:{position}", stem(question), "meqsum", question, summary)
