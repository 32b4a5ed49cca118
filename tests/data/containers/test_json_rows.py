"""JSON in every form that people bring: lines, arrays, wrapped, keyed, by columns, pretty, one after another."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.formats.tables import TableRow
from lora_med.data.outcome import PartDrop, ReadOptions, Tally
from lora_med.data.reading import read_records
from lora_med.data.record import Passage
from tests.data.containers.reading_rows import outcomes, refusal, values

A, B = {"text": "One."}, {"text": "Two."}
QUESTIONS = [
    {"question": "What is dyspnea?", "answer": "Breath."},
    {"question": "What is edema?", "answer": "Swelling."},
]


def pretty(*values: Any) -> str:
    return "\n".join(json.dumps(value, indent=2) for value in values)


READ: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "NaN, as pandas writes a missing value": ('{"text": "One.", "x": NaN}\n{"text": "Two."}', [A | {"x": None}, B]),
    "array in .json": (json.dumps([A, B]), [A, B]),
    "pretty array": (pretty([A, B]), [A, B]),
    "lines": (json.dumps(A) + "\n\n" + json.dumps(B), [A, B]),
    "lines that end in CR LF": (json.dumps(A) + "\r\n" + json.dumps(B) + "\r\n", [A, B]),
    "lines that end in CR": (json.dumps(A) + "\r" + json.dumps(B) + "\r", [A, B]),
    "one after another": (json.dumps(A) + json.dumps(B) + "\n", [A, B]),
    "one after another on lines": (json.dumps(A) + json.dumps(B) + "\n" + json.dumps(A), [A, B, A]),
    "pretty one after another": (pretty(A, B), [A, B]),
    "a line, then pretty": (json.dumps(A) + "\n" + pretty(B), [A, B]),
    "arrays one after another": (json.dumps([A]) + "\n" + json.dumps([B, A]), [A, B, A]),
    "one record over several lines": (pretty(QUESTIONS[0]), QUESTIONS[:1]),
    "one record on one line": (json.dumps(QUESTIONS[0]), QUESTIONS[:1]),
    "under data": (json.dumps({"data": QUESTIONS}), QUESTIONS),
    "under any key": (pretty({"version": "1.0", "tasks": QUESTIONS, "count": 2}), QUESTIONS),
    "deeper": (json.dumps({"took": 3, "result": {"total": {"value": 2}, "hits": QUESTIONS}}), QUESTIONS),
    "lists of visits, keyed by patients": (
        json.dumps({"p1": {"visits": [{"year": 1}]}, "p2": {"visits": []}}),
        [{"id": "p1", "visits": [{"year": 1}]}, {"id": "p2", "visits": []}],
    ),
    "a JSON text sequence": ("\x1e" + json.dumps(A) + "\n\x1e" + json.dumps(B) + "\n", [A, B]),
    "files with marks joined": ("\ufeff" + json.dumps(A) + "\n\ufeff" + json.dumps(B) + "\n", [A, B]),
    "keyed under a key": (
        json.dumps({"version": 1, "data": {"q1": QUESTIONS[0], "q2": QUESTIONS[1]}}),
        [{"id": "q1", **QUESTIONS[0]}, {"id": "q2", **QUESTIONS[1]}],
    ),
    "keyed by identifiers": (
        pretty({"17": QUESTIONS[0], "18": QUESTIONS[1]}),
        [{"id": "17", **QUESTIONS[0]}, {"id": "18", **QUESTIONS[1]}],
    ),
    "keyed, with identifiers inside": (
        json.dumps({"17": {"id": "a", **A}, "18": {"id": "b", **B}}),
        [{"key": "17", "id": "a", **A}, {"key": "18", "id": "b", **B}],
    ),
    "keyed, of objects": (
        json.dumps(
            {"p1": {"visit": {"year": 2001}, "note": {"text": "a"}}, "p2": {"visit": {}, "note": {"text": "b"}}}
        ),
        [
            {"id": "p1", "visit": {"year": 2001}, "note": {"text": "a"}},
            {"id": "p2", "visit": {}, "note": {"text": "b"}},
        ],
    ),
    "by columns": (
        json.dumps({"text": ["One.", "Two."], "title": ["a", "b"]}),
        [{"text": "One.", "title": "a"}, {"text": "Two.", "title": "b"}],
    ),
    "by one column": (json.dumps({"text": ["One.", "Two."]}), [A, B]),
    "by columns of lists": (
        json.dumps({"id": [1, 2], "turns": [[{"a": 1}], []]}),
        [{"id": 1, "turns": [{"a": 1}]}, {"id": 2, "turns": []}],
    ),
    "columns of pandas": (
        json.dumps({"text": {"0": "One.", "1": "Two."}, "n": {"0": 5, "1": None}}),
        [{"text": "One.", "n": 5}, {"text": "Two.", "n": None}],
    ),
    "split of pandas": (
        json.dumps({"columns": ["text", "n"], "index": [0, 1], "data": [["One.", 5], ["Two.", 6]]}),
        [{"text": "One.", "n": 5}, {"text": "Two.", "n": 6}],
    ),
    "table of pandas": (json.dumps({"schema": {"fields": [{"name": "text"}]}, "data": [A, B]}), [A, B]),
    "a record with a list of objects": (
        pretty({"text": "Fever.", "entities": [{"start": 0, "end": 5, "label": "Disease"}]}),
        [{"text": "Fever.", "entities": [{"start": 0, "end": 5, "label": "Disease"}]}],
    ),
    "a record of turns": (
        pretty({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
    ),
    "a record of tokens": (
        pretty({"tokens": ["a", "b"], "tags": ["O", "O"]}),
        [{"tokens": ["a", "b"], "tags": ["O", "O"]}],
    ),
    "data sets by name": (
        json.dumps({"medqa": {"0": QUESTIONS[0]}, "bioasq": {"0": QUESTIONS[1]}}),
        [{"medqa": {"0": QUESTIONS[0]}, "bioasq": {"0": QUESTIONS[1]}}],
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_the_records_are_found_whatever_is_around_them(kind: str, tmp_path: Path) -> None:
    content, expected = READ[kind]
    assert values(tmp_path / "a.json", content) == expected
    assert values(tmp_path / "b.json.gz", gzip.compress(content.encode())) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("kind", ["array in .json", "lines", "one record over several lines", "keyed by identifiers"])
def test_a_byte_order_mark_says_the_encoding(encoding: str, kind: str, tmp_path: Path) -> None:
    content, expected = READ[kind]
    for name in ("a.json", "a.jsonl", "a.ndjson"):
        assert values(tmp_path / name, content.encode(encoding)) == expected
    accents = json.dumps([{"text": "fièvre 高血压"}], ensure_ascii=False)
    assert values(tmp_path / "a.json", accents.encode(encoding)) == [{"text": "fièvre 高血压"}]


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonl", "a.ndjson"):
        assert values(tmp_path / name, json.dumps([A, B])) == [A, B]
        assert values(tmp_path / name, json.dumps(A) + "\n" + json.dumps(B)) == [A, B]
        assert values(tmp_path / name, pretty({"data": [A, B]})) == [A, B]
    only = {"id": 1, "problems": [{"name": "a"}]}
    assert values(tmp_path / "a.jsonl", json.dumps(only)) == [only], "the only line of JSON lines is a record"


def test_rows_are_named_by_line_or_item(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    lines = outcomes(path, "\n" + json.dumps(A) + "\n" + json.dumps(B))
    assert [row.where for row in lines] == [f"{path}:2", f"{path}:3"]  # type: ignore[union-attr]
    found = outcomes(path, pretty(A, B))
    assert [row.where for row in found] == [f"{path}:1, item 1", f"{path}:4, item 2"]  # type: ignore[union-attr]


def test_of_several_lists_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = json.dumps({"train": [A], "test": [B], "version": 1})
    said = refusal(path, content)
    assert "train, test" in said and "--sheet train" in said and "data.sheet=train" in said
    assert values(path, content, sheet="test") == [B]
    assert "did you mean 'train'" in refusal(path, content, sheet="trains")
    assert "--sheet train" in refusal(path, json.dumps({"train": [A], "test": [B]}))
    keyed = json.dumps({"train": {"1": A}, "test": {"2": B}})
    assert "train, test" in refusal(path, keyed)
    assert values(path, keyed, sheet="train") == [{"id": "1", **A}]


REFUSED: dict[str, tuple[str, str]] = {
    "a record beside records": (json.dumps({"text": "About.", "data": [A, B]}), "data.sheet=data"),
    "a long text beside a list": (json.dumps({"notes": "word " * 100, "problems": [{"name": "x"}]}), "texts in notes"),
    "columns of other lengths": (json.dumps({"text": ["a", "b"], "title": ["c"]}), "text 2, title 1"),
    "a value in an array": (json.dumps([A, 5]), "item 2"),
    "Infinity": ('[{"text": "One.", "x": -Infinity}]', "-Infinity is not JSON"),
    "a number without end": ('{"x": 1e999}', "larger"),
    "a comma after a line": (json.dumps(A) + ",\n" + json.dumps(B), "a comma follows it"),
    "a comma between records": (pretty(A) + ",\n" + pretty(B), ":3\n"),
    "two values on a later line": (json.dumps(A) + "\n" + json.dumps(A) + json.dumps(B), "another value follows"),
    "an array cut short": (pretty([A, B])[:-4], "ends early"),
    "quotes of Python": ("[{'text': 'One.'}]", "double quotes"),
    "a comma before the bracket": ('[{"text": "One."},\n]', "before a closing bracket"),
    "rows of cells": ('[["text"], ["One."]]', "expected a JSON object, got an array"),
    "a text alone": ('"text"', "expected a JSON object, got a text"),
    "NUL in a line": ('{"text": "a\0b"}\n{"text": "c"}', "NUL"),
    "NUL as an escape": ('{"text": "a\\u0000b"}\n{"text": "c"}', "column 'text' holds a NUL character"),
    "NUL as an escape, nested": ('[{"turns": [{"content": "a\\u0000b"}]}]', "column 'turns' holds a NUL character"),
}


MAY_SKIP = ("a value in an array", "NUL in a line", "NUL as an escape", "NUL as an escape, nested")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_may_mean_two_things_or_is_no_json_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    content, named = REFUSED[kind]
    said = refusal(tmp_path / "a.json", content)
    assert named in said
    assert "skip" not in said or kind in MAY_SKIP, said


def test_a_bad_value_does_not_affect_the_records_before_it(tmp_path: Path) -> None:
    first, last = outcomes(tmp_path / "a.json", pretty(A) + '\n{"text": ')
    assert first.values == A and last.error and last.error.where == f"{tmp_path / 'a.json'}:4"  # type: ignore[union-attr]


def test_a_text_in_a_message_is_no_content(tmp_path: Path) -> None:
    part, _ = outcomes(tmp_path / "a.json", '{"Mrs Zebra has gout": 1, "Mrs Zebra has gout": 2}')
    assert isinstance(part, PartDrop) and "Zebra" not in part.what and "occurs twice" in part.what


TWICE = '{"text": "One.", "text": "Two."}'


@pytest.mark.parametrize(
    ("content", "lines", "kept"),
    [
        (f"{TWICE}\n" * 2, [1, 2], [{"text": "Two."}] * 2),
        (TWICE, [1], [{"text": "Two."}]),
        (f"\n[{TWICE}, {TWICE}]", [2, 2], [{"text": "Two."}] * 2),
        (
            f"{pretty(A)}\n{pretty(B)}\n{TWICE}",
            [pretty(A).count("\n") + pretty(B).count("\n") + 3],
            [A, B, {"text": "Two."}],
        ),
        ('{"a": {"text": "One.", "text": "Two."}, "text": "x"}\n{"text": "y"}', [1], None),
    ],
)
def test_of_a_key_that_occurs_twice_the_last_value_is_read_and_the_loss_counted(
    content: str, lines: list[int], kept: list[dict[str, Any]] | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    found = outcomes(path, content)
    parts = [part for part in found if isinstance(part, PartDrop)]
    assert [part.where for part in parts] == [f"{path}:{line}" for line in lines]
    assert {(part.reason, part.what) for part in parts} == {
        ("repeated_key", "the key 'text' occurs twice in one object; its last value is read")
    }
    if kept is not None:
        assert [row.values for row in found if isinstance(row, TableRow)] == kept


def test_a_key_that_occurs_twice_is_named_once_with_file_and_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "Zero."}}\n{TWICE}\n{{"text": "a", "text": "b"}}\n')
    reading = read_records(find_source("custom"), [path], ReadOptions())
    for _ in range(2):
        assert [record.text for record in reading if isinstance(record, Passage)] == ["Zero.", "Two.", "b"]
    assert reading.tally == Tally(3, 3, parts_dropped={"repeated_key": 2})
    assert [record.getMessage() for record in caplog.records if "occurs twice" in record.getMessage()] == [
        f"{path}:2: the key 'text' occurs twice in one object; its last value is read; all such are counted as "
        "repeated_key"
    ]
