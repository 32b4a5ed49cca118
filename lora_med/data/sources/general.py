"""The general probe: sentences about language and everyday knowledge to complete, to measure forgetting.

It ships with lora_med (assets/probe/general.jsonl, written by tools/sample/probe.py) and is all test split. Format:
JSON lines with uid, subject, question (the beginning), options (the endings) and answer. License as the project's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_med.data.formats.row_fields import Wrong, outcomes, text_of
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Question

PROBE = Path(__file__).parents[2] / "assets" / "probe" / "general.jsonl"


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The items of the inputs. Drops with an error: bad, and those of the row formats."""
    return outcomes(inputs, _question, options.table)


def _question(values: Mapping[str, Any], position: str) -> Question:
    endings, answer = values.get("options"), text_of(values, "answer")
    if not isinstance(endings, list) or len(endings) < 2 or not all(isinstance(ending, str) for ending in endings):
        raise Wrong("options: expected a list of two texts or more")
    if answer not in endings:
        raise Wrong("answer: expected one of the options")
    uid = f"general:{text_of(values, 'uid')}"
    beginning = text_of(values, "question")
    return Question(uid, uid, "general", beginning, answer, options=tuple(endings), subject=text_of(values, "subject"))
