"""Each validation item's answers at each scoring, on disk: what an interval of the difference is computed from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_med.files import disk_errors, write_atomic

FILE = "validation_items.jsonl"


def read_answers(output_dir: Path) -> dict[int, list[Any]]:
    """Step -> the answers to all items, in their order; a last line that a kill cut off is left out."""
    answers: dict[int, list[Any]] = {}
    try:
        lines = (output_dir / FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        answers[entry["step"]] = entry["answers"]
    return answers


def add_answers(output_dir: Path, step: int, answers: Sequence[Any]) -> None:
    """Append the answers of one scoring: numbers alone, no text."""
    path = output_dir / FILE
    with disk_errors(path), open(path, "a", encoding="utf-8") as handle:
        handle.write(_line(step, answers))


def forget_after(output_dir: Path, step: int) -> None:
    """Remove what was scored after `step`: a resumed run scores it again. Of a new run, step 0, everything."""
    answers = {scored: each for scored, each in read_answers(output_dir).items() if 0 < step >= scored}
    write_atomic(output_dir / FILE, "".join(_line(scored, each) for scored, each in answers.items()))


def _line(step: int, answers: Sequence[Any]) -> str:
    return json.dumps({"step": step, "answers": list(answers)}) + "\n"
