"""Preferences: a prompt, the answer that was chosen and the one that was rejected, as texts or as turns.

    {"prompt": text, "chosen": text, "rejected": text}
    {"prompt": text or turns, "chosen": [answer], "rejected": [answer]}
    {"chosen": turns, "rejected": turns}                    the same turns but for the last answer

A pair whose two answers are the same prefers nothing; it is dropped and counted as `same_answer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lora_med.data.record import Pair
from lora_med.data.shapes.columns.cells import is_blank, parsed
from lora_med.data.shapes.columns.row_columns import Row
from lora_med.data.shapes.conversations import Turn, answer_reasoning, conversation, read_turns
from lora_med.data.shapes.instructions import two_sides
from lora_med.data.shapes.row_error import Rejected, RowError

ANSWERS = ("chosen", "rejected")
ONLY_ANSWER = 1  # turn, beside a prompt
FAITHFULNESS = "faithfulness"
MINED = "mined_by"  # the column of a row that a check made, not a person


def mined_by(check: str) -> str:
    """What rows say in the column `mined_by`, and with them the card of what learns from them."""
    return f"{check}: this check is never the score of what learns from these pairs"


def preference(row: Row) -> Pair:
    """The chosen answer as the output, and beside it the rejected one.

    Raises:
        RowError: the two sides differ before their answers, or an answer has reasoning before it.
        Rejected: the two answers are the same.
    """
    chosen, rejected = (_side(row, name) for name in ANSWERS)
    names = " and ".join(map(row.called, ANSWERS))
    if (chosen.input, chosen.history, chosen.in_turns) != (rejected.input, rejected.history, rejected.in_turns):
        raise RowError("bad_type", f"{names}: expected two texts, or the same turns but for the last answer")
    if chosen.reasoning or rejected.reasoning:
        raise RowError("bad_type", f"{names}: reasoning before an answer is not compared; leave it out")
    if chosen.output.strip() == rejected.output.strip():
        raise Rejected("same_answer")
    return replace(chosen, rejected=rejected.output)


def _side(row: Row, name: str) -> Pair:
    """The prompt with one of its answers."""
    answer = parsed(row.get(name))
    if not isinstance(answer, list):
        return two_sides(row, "prompt", name)
    label = f"columns {row.column('prompt')!r} and {row.column(name)!r}" if row.fills("prompt") else row.called(name)
    turns = [*_prompt_turns(row, answer), *answer]
    return conversation(row, read_turns(row, turns, label), label, answer_reasoning(turns, label))


def _prompt_turns(row: Row, answer: Sequence[Any]) -> list[Any]:
    """The turns of the prompt that the answer's own turns do not hold.

    Raises:
        RowError: the answer's turns hold another prompt.
    """
    prompt = parsed(row.get("prompt")) if row.fills("prompt") else None
    if prompt is None or is_blank(prompt):
        return []
    if isinstance(prompt, list):
        return [] if list(answer[: len(prompt)]) == prompt else prompt
    asked = row.text("prompt")
    if len(answer) == ONLY_ANSWER:
        return [{"role": "user", "content": asked}]
    questions: list[Turn] = [turn for turn in read_turns(row, list(answer), row.called("chosen")) if turn[0] == "user"]
    if asked.strip() not in (content.strip() for _, content in questions):
        raise RowError("bad_type", f"{row.called('prompt')}: expected one of the questions in the turns of the answers")
    return []
