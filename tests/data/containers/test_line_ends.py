"""One form of line end in every text of every record, and no NUL, whatever the container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.formats.containers.line_ends import with_one_line_end
from lora_med.data.formats.tables import TableRow, rows
from lora_med.data.in_memory import memory_rows
from lora_med.data.outcome import Drop, ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.record import Annotated, Pair, Passage, Question, Section, Span


def test_all_texts_of_a_record_end_their_lines_alike() -> None:
    assert with_one_line_end(Passage("u", "g", "custom", "a\r\nb\rc", "t\r\nu", (Section("a\r\nb", "L"),))) == Passage(
        "u", "g", "custom", "a\nb\nc", "t\nu", (Section("a\nb", "L"),)
    )
    assert with_one_line_end(Question("u", "g", "custom", "q\r\n?", "a\rb", ("c\r\n",), ("a\rb", "x"))) == Question(
        "u", "g", "custom", "q\n?", "a\nb", ("c\n",), ("a\nb", "x")
    )
    assert with_one_line_end(Pair("u", "g", "custom", "a\r\r\nb", "c", "", (("user", "d\r\n"),))) == Pair(
        "u", "g", "custom", "a\nb", "c", "", (("user", "d\n"),)
    )


def test_spans_move_with_their_letters() -> None:
    text = "Fever\r\nand\rpain\r\nat\r\nnight"
    spans = tuple(
        Span(text.index(mention), text.index(mention) + len(mention), "Finding", mention)
        for mention in ("Fever", "pain", "at\r\nnight")
    )
    moved = with_one_line_end(Annotated("u", "g", "custom", text, spans))
    assert isinstance(moved, Annotated) and moved.text == "Fever\nand\npain\nat\nnight"
    assert [(span.start, span.end, span.text) for span in moved.spans] == [
        (0, 5, "Fever"),
        (10, 14, "pain"),
        (15, 23, "at\nnight"),
    ]
    assert all(moved.text[span.start : span.end] == span.text for span in moved.spans)


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "memory"])
def test_every_container_gives_line_feeds_and_no_nul(form: str, tmp_path: Path) -> None:
    table = [{"text": "One\r\ntwo\rthree"}, {"text": "A\0B"}, {"text": "C"}]
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    else:
        path.write_text(json.dumps(table) if form == "json" else "".join(json.dumps(row) + "\n" for row in table))
    item: Any = memory_rows("train", table, source="custom") if form == "memory" else path
    first, second, third = rows(item)
    assert isinstance(second, Drop) and "'text' holds a NUL character" in str(second.error)
    assert isinstance(first, TableRow) and isinstance(third, TableRow)
    reading = read_records(find_source("custom"), [item], ReadOptions({"text": "text"}), skip_bad=True)
    assert [record.text for record in reading if isinstance(record, Passage)] == ["One\ntwo\nthree", "C"]
    assert reading.tally.dropped == {"nul_character": 1}
