"""Instructions: Alpaca's rows, prompts with completions, inputs with outputs; a system text and earlier turns too.

An instruction and its input together are the prompt, a blank line between them; the input may be empty. What
databricks-dolly calls `context` is the input of its instruction. A context beside a prompt or an input comes before it.
An instruction and its output are a user's turn and the answer to it, so the base's own chat template writes them.
"""

from __future__ import annotations

from lora_med.data.formats.jsonl import CONVERSATION
from lora_med.data.record import Pair
from lora_med.data.shapes.columns.row_columns import Row
from lora_med.data.shapes.conversations import answer_reasoning, conversation, history, read_turns, with_system
from lora_med.data.shapes.row_error import RowError

CONTEXT_WORDS = 8  # an input of so many words is a text of its own, which must not be in two splits


def instruction(row: Row) -> Pair:
    """Alpaca: instruction and input, then the output."""
    asked, field = row.optional("instruction"), "input" if row.fills("input") else "contexts"
    given = row.optional("input") if field == "input" else "\n\n".join(row.texts("contexts"))
    row.optional("input")
    if not asked.strip() and not given.strip():
        raise RowError("empty_text", f"{row.called('instruction')}: expected a text, it is empty, and so is the input")
    prompt = "\n\n".join(part for part in (asked, given) if part.strip())
    kept_together = given if len(given.split()) >= CONTEXT_WORDS else prompt
    return _pair(row, prompt, row.text("output"), kept_together, in_turns=True)


def prompt_completion(row: Row) -> Pair:
    """A prompt and its completion, or both sides given as turns."""
    return two_sides(row, "prompt", "completion")


def input_output(row: Row) -> Pair:
    """An input and its output, as `lora-med data read` writes them."""
    return two_sides(row, "input", "output")


def two_sides(row: Row, first: str, second: str) -> Pair:
    """A text and the one that follows it, in the fields `first` and `second`, or both given as turns."""
    one, other = row.get(first), row.get(second)
    if isinstance(one, list) and isinstance(other, list):
        name = f"columns {row.column(first)!r} and {row.column(second)!r}"
        turns = [*one, *other]
        return conversation(row, read_turns(row, turns, name), name, answer_reasoning(turns, name))
    prompt, given = row.text(first), "\n\n".join(row.texts("contexts"))
    kept_together = given if len(given.split()) >= CONTEXT_WORDS else prompt
    asked = f"{given}\n\n{prompt}" if given.strip() else prompt  # last, as the completion continues it
    return _pair(row, asked, row.text(second), kept_together)


def _pair(row: Row, prompt: str, answer: str, kept_together: str, *, in_turns: bool = False) -> Pair:
    turns = with_system(row, history(row), row.called("history"))
    section, reasoning = row.optional("section"), row.optional("reasoning")
    in_turns = in_turns or ("source" in row.values and row.values.get("kind") == CONVERSATION)
    uid, group = row.uid(), row.group(kept_together)
    return Pair(uid, group, "custom", prompt, answer, section, tuple(turns), reasoning, in_turns)
