"""PYTHONHASHSEED=0 python -m tools.deid.make_test: write notes that de-identification is tested on, never trained on.

Two hundred invented notes of 48 wordings, four or five of each. Needs Faker 40.63.0, whose lists give the names. Its
draws follow Python's hash seed. The notes in tests/audit were drawn under one that was not written down. So this gives
the first 19 of them, and then others of the same wordings. A test's notes do not change once something was measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.deid.slot_values import Values
from tools.deid.test_wordings import WORDINGS

TARGET = Path(__file__).parents[2] / "runs" / "deid" / "invented_notes.jsonl"
SLOT = re.compile(r"\[\[([A-Z]+) (\w+)(?:=(\w+))?\]\]")
NOTES, SEED = 200, 7


def filled(wording: str, values: Values) -> tuple[str, list[dict[str, Any]]]:
    """The text of a wording with its slots filled, and the span of each."""
    values.begin()
    text, spans, end = "", [], 0
    for slot in SLOT.finditer(wording):
        text += wording[end : slot.start()]
        value = values.value(slot[1], slot[2], slot[3])
        spans.append({"start": len(text), "end": len(text) + len(value), "type": slot[1], "form": slot[2]})
        text, end = text + value, slot.end()
    return text + wording[end:], spans


def notes() -> Iterator[dict[str, Any]]:
    """The notes of the test, in a fixed order."""
    values = Values(SEED, of_test=True)
    for number in range(NOTES):
        text, spans = filled(WORDINGS[number % len(WORDINGS)], values)
        yield {"uid": f"test:{number}", "wording": number % len(WORDINGS), "text": text, "spans": spans}


def main() -> None:
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in notes())
    TARGET.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
