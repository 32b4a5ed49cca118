"""Damaged rows of every shape: records as promised, or an error that names the file; never a hang, never a crash."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.outcome import ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.record import Pair, Question, texts_of
from lora_med.errors import DataError
from tests.data.test_fuzz import MUTATIONS, SECONDS, limited, mutated

LETTERS = {"A": "Salt", "B": "Ice", "C": "Sand"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "alpaca": [
        {"instruction": "Do it.", "input": "A note.", "output": "Done.", "system": "Be.", "history": [["a", "b"]]},
        {"instruction": "Why?", "input": "", "output": "So."},
    ],
    "messages": [
        {"messages": [{"role": "system", "content": "B"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
                      {"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]},
    ],
    "questions": [
        {"question": "Which?", "options": LETTERS, "answer": "B"},
        {"question": "Who?", "options": list(LETTERS.values()), "answer": 0},
        {"question": "When?", "contexts": ["Iron."], "options": str(LETTERS), "answer_idx": "C", "explanation": "So."},
        {"question": "Where?", "opa": "x", "opb": "y", "cop": 1},
    ],
    "squad": [{"title": "t", "paragraphs": [{"context": "Iron rusts.", "qas": [
        {"id": "1", "question": "What?", "answers": [{"text": "Iron", "answer_start": 0}]}]}]}],
    "bioasq": [{"questions": [{"id": "1", "type": "list", "body": "Which?", "exact_answer": [["a", "b"], ["c"]],
                               "ideal_answer": ["d"], "snippets": [{"text": "e"}]}]}],
    "labels": [{"text": "Iron.", "label": "x"}, {"text": "Gold.", "label": ["y"]}],
}  # fmt: skip


@pytest.mark.parametrize("shape", ROWS)
def test_damage_gives_sound_records_or_a_named_error(shape: str, tmp_path: Path) -> None:
    content = "".join(json.dumps(row) + "\n" for row in ROWS[shape]).encode()
    path, draw, errors = tmp_path / "rows.jsonl", random.Random(f"fuzz {shape}"), 0
    for number in range(MUTATIONS):
        path.write_bytes(mutated(content, draw))
        for skip_bad in (False, True):
            try:
                with limited(SECONDS):
                    reading = read_records(find_source("custom"), [path], ReadOptions(), skip_bad=skip_bad)
                    records = list(reading)
            except DataError as error:  # skipped rows too: a column of content that nobody named stops every reading
                assert path.name in (error.where or ""), (number, error)
                assert error.fix, number
                errors += 1
                continue
            assert reading.tally.read == reading.tally.kept + sum(reading.tally.dropped.values())
            for record in records:
                assert record.group and record.source == "custom"
                assert all(text.encode("utf-8") is not None for text in texts_of(record))
                if isinstance(record, Pair):
                    assert record.input.strip() and record.output.strip()
                if isinstance(record, Question):
                    assert record.question.strip() and record.answer.strip()
                    assert not record.options or record.options[record.right_option] == record.answer
    assert errors > 20


@pytest.mark.parametrize("cell", ["[" * 200_000, "[" + "-" * 200_000 + "1]", "{'a':" * 100_000, "[" * 900 + "]" * 900])
@pytest.mark.parametrize("field", ["options", "contexts", "answer", "history", "messages", "label", "x"])
def test_a_deep_cell_is_a_text_or_a_named_error(tmp_path: Path, cell: str, field: str) -> None:
    for value in (cell, json.loads(cell) if cell.endswith("]]") else cell):
        for row in ({"question": "q", "answer": "a"}, {"prompt": "p", "completion": "c"}, {"text": "t"}):
            (tmp_path / "rows.jsonl").write_text(json.dumps(row | {field: value}) + "\n")
            with limited(SECONDS):
                try:
                    list(read_records(find_source("custom"), [tmp_path / "rows.jsonl"], ReadOptions()))
                except DataError as error:
                    assert "rows.jsonl" in (error.where or "")
