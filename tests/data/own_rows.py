"""Rows of one's own, read as `custom` reads them, for the tests of shapes and columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.data.catalog import find_source
from lora_med.data.outcome import ReadNotes, ReadOptions, Tally
from lora_med.data.reading import read_records
from lora_med.data.record import Record


@dataclass(frozen=True)
class Found:
    """What reading some rows gave."""

    records: list[Record]
    tally: Tally
    notes: ReadNotes


def read_path(path: Path, *, skip_bad: bool = False, **options: Any) -> Found:
    """The records of a file, its notes and its counts; `options` are those of ReadOptions."""
    chosen = ReadOptions(**options)
    reading = read_records(find_source("custom"), [path], chosen, skip_bad=skip_bad)
    records = list(reading)
    assert reading.tally.read == reading.tally.kept + sum(reading.tally.dropped.values())
    return Found(records, reading.tally, chosen.notes)


def read_rows(folder: Path, *rows: Any, skip_bad: bool = False, **options: Any) -> Found:
    """The same of rows that are written as JSON lines."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return read_path(path, skip_bad=skip_bad, **options)


def only(folder: Path, row: Any, **options: Any) -> Any:
    """The record of one row."""
    (record,) = read_rows(folder, row, **options).records
    return record
