"""What an assistant thought before its answer, where a turn of a conversation says it beside its content."""

from __future__ import annotations

from collections.abc import Sequence

from lora_med.data.formats.tables import is_encodable
from lora_med.data.shapes.row_error import RowError

KEYS = ("reasoning_content", "reasoning", "thinking")  # of the interfaces that give it, the commonest first


def last_reasoning(turns: object, name: str) -> str:
    """The reasoning of the last turn of a list of turns; '' where it has none.

    Raises:
        RowError: it is no text.
    """
    last = turns[-1] if isinstance(turns, Sequence) and turns else None
    if not isinstance(last, dict):
        return ""
    key = next((key for key in KEYS if last.get(key)), None)
    if key is None:
        return ""
    if not isinstance(last[key], str):
        raise RowError("bad_type", f"{name}, last turn: expected {key} to be a text, got {type(last[key]).__name__}")
    if not is_encodable(last[key]):
        raise RowError("bad_utf8", f"{name}, last turn: half a surrogate pair in {key} is not a character")
    return last[key] if last[key].strip() else ""
