"""The records of a file that is one JSON object: a record itself, or an object with the records somewhere inside.

    {"question": ..., "answer": ...}            one record: it has a field of content, or turns, or annotations
    {"version": ..., "data": [{...}, {...}]}    the records under the one list of objects, whatever its key
    {"response": {"hits": [{...}, {...}]}}      the same, deeper
    {"data": {"q1": {...}, "q2": {...}}}        the same, keyed by identifiers
    {"q1": {...}, "q2": {...}}                  records keyed by identifiers
    {"text": ["a", "b"], "title": [...]}        a table by columns; also {"text": {"0": "a", "1": "b"}} of pandas
    {"columns": [...], "data": [[...], ...]}    a table split into names and rows, also of pandas

A key that identifies a record becomes its column `id`, or `key` where records have an `id` of their own. Where several
lists may be the records, or an object may be a record or hold them, the file is refused until `data.sheet` names a key.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.data.formats.containers.table_row import column_names
from lora_med.errors import DataError, SettingsError

CONTENT = frozenset(
    [
        "text",
        "question",
        "prompt",
        "instruction",
        "input",
        "output",
        "answer",
        "completion",
        "response",
        "query",
        "sentence",
        "note",
        "abstract",
        "passage",
        "context",
        "dialogue",
        "content",
        "body",
        "article",
        "document",
        "report",
    ]
)
WORDS = frozenset(("tokens", "words"))
TURNS = ({"role", "content"}, {"from", "value"}, {"role", "text"}, {"speaker", "text"}, {"role", "value"})
ANNOTATION = frozenset(("start", "end", "start_offset", "begin", "offset", "offsets", "locations", "result"))
WRAPPERS = frozenset(["data", "records", "rows", "items", "results", "examples", "samples", "instances", "entries"])
SPLITS = frozenset(["train", "training", "dev", "validation", "valid", "val", "test"])
ABOUT = frozenset(
    ["description", "license", "licence", "citation", "about", "info", "homepage", "readme", "disclaimer"]
)
LONG_TEXT = 200  # characters: beside a list, a text so long may be content
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What an object is: one `record`, or `records` with the name of each for messages."""

    record: dict[str, Any] | None = None
    records: tuple[tuple[str, Any], ...] = ()


def records_of(value: Any, path: Path, line: int, sheet: str | None, *, is_line: bool) -> Found | list[Any]:
    """The records of a file's only value: the items of an array as they are, or what an object holds.

    `is_line` says that the object is the only line of JSON lines, and so a record.

    Raises:
        SettingsError: no key has the name `sheet`.
        DataError: several lists, or a list and content beside it.
    """
    if sheet is not None:
        return _named(value, sheet, path)
    if not isinstance(value, dict):
        return value if isinstance(value, list) else [value]
    if is_line:
        return Found(value)
    inside = {key: inner for key, inner in value.items() if _is_list_of_records(inner) or _is_keyed(inner)}
    inside = inside or _deeper(value)
    if _is_record(value):
        if both := [key for key in inside if key.casefold() in WRAPPERS and _holds_records(inside[key])]:
            raise _unclear(f"content beside the records in {column_names(both)!r}", path, line, both)
        return Found(value)
    if _is_split(value):
        return _split_table(value, path)
    is_split_set = len(inside) == len(value) and all(key.casefold() in SPLITS for key in inside)
    if not is_split_set and (columns := _by_columns(value)) and (len(columns) > 1 or not inside):
        return _table(columns, path, line)
    if inside:
        return _inside(value, inside, path, line)
    if _is_keyed_file(value):
        return Found(records=tuple(_keyed(value)))
    return Found(value)


def _named(value: Any, sheet: str, path: Path) -> Found | list[Any]:
    if not isinstance(value, dict) or sheet not in value:
        keys = value.keys() if isinstance(value, dict) else ()
        where = f"data.sheet (--sheet), {path}"
        raise SettingsError(unknown("list", sheet, map(str, keys)), where=where, fix="name a key of the object")
    inner = value[sheet]
    if isinstance(inner, list):
        return inner
    return records_of(inner, path, 1, None, is_line=False)


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_keyed(value: Any) -> bool:
    """Whether a value is an object of records, each of them with content."""
    return isinstance(value, dict) and bool(value) and all(map(_is_record, value.values()))


def _holds_records(value: Any) -> bool:
    return any(map(_is_record, value if isinstance(value, list) else value.values()))


def _is_record(value: Any) -> bool:
    """Whether an object has a field of content, turns, tokens or annotations of its own."""
    if not isinstance(value, dict):
        return False
    for key, inner in value.items():
        name = key.casefold()
        if isinstance(inner, str | int | float) and name in CONTENT:
            return True
        if isinstance(inner, list) and inner:
            if name in WORDS and isinstance(inner[0], str):
                return True
            if isinstance(inner[0], dict) and (
                ANNOTATION & inner[0].keys() or any(turn <= inner[0].keys() for turn in TURNS)
            ):
                return True
    return False


def _inside(value: Mapping[str, Any], inside: Mapping[str, Any], path: Path, line: int) -> Found | list[Any]:
    if len(inside) > 1:
        sets = all(map(_is_keyed, inside.values())) and len(inside) == len(value)
        if sets and not all(key.casefold() in SPLITS for key in inside):
            return Found(dict(value))  # data sets by name, as benchmarks are published: one nested record
        raise _unclear(f"{len(inside)} lists of records: {column_names(inside)}", path, line, list(inside))
    (key, records), *_ = inside.items()
    beside = {name: inner for name, inner in value.items() if name != key}
    if long := [
        name
        for name, inner in beside.items()
        if isinstance(inner, str) and len(inner) > LONG_TEXT and name.casefold() not in ABOUT
    ]:
        raise _unclear(f"a list under {column_names([key])!r} and texts in {column_names(long)}", path, line, [key])
    if beside:
        left = column_names(beside)
        logger.info("%s: the records are the list %r; beside it, and not read: %s", path.name, key, left)
    if isinstance(records, list) or _is_keyed(records):
        return records if isinstance(records, list) else Found(records=tuple(_keyed(records)))
    return records_of(records, path, line, None, is_line=False)


def _deeper(value: Mapping[str, Any], levels: int = 3) -> dict[str, Any]:
    """The only object inside, if the records are a list in it, or deeper; its key is no identifier of a record."""
    objects = {key: inner for key, inner in value.items() if isinstance(inner, dict) and inner}
    if len(objects) != 1 or not levels:
        return {}
    (key, inner), *_ = objects.items()
    holds = any(map(_is_list_of_records, inner.values())) or bool(_deeper(inner, levels - 1))
    is_identifier = len(value) == 1 and any(letter.isdigit() for letter in key)
    return {key: inner} if holds and not is_identifier and not _is_record(inner) else {}


def _unclear(what: str, path: Path, line: int, keys: Sequence[str]) -> DataError:
    likely = next((key for key in keys if key.casefold() in WRAPPERS), keys[0])
    fix = f"name the list to read: data.sheet={likely} (--sheet {likely}); one record is written as JSON lines"
    return DataError(f"the object holds {what}", where=f"{path}:{line}", fix=fix)


def _is_keyed_file(value: Mapping[str, Any]) -> bool:
    """Whether the values are objects, or most of them records, some damaged."""
    objects = [inner for inner in value.values() if isinstance(inner, dict)]
    return bool(objects) and (
        len(objects) == len(value) or (2 * len(objects) >= len(value) and all(map(_is_record, objects)))
    )


def _keyed(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The records with their keys as a column."""
    taken = {name for inner in value.values() if isinstance(inner, dict) for name in inner}
    column = next(name for name in ("id", "key", "record key", "key of the record in the file") if name not in taken)
    return [
        (f"item {number}", {column: key, **inner} if isinstance(inner, dict) else inner)
        for number, (key, inner) in enumerate(value.items(), 1)
    ]


def _by_columns(value: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns of a table that is written by columns; none where an object is no such table."""
    if value and all(isinstance(inner, list) for inner in value.values()):
        lengths = {len(inner) for inner in value.values()}
        is_table = len(lengths) == 1 and lengths != {0}
        return dict(value) if is_table or _has_columns_of_content(value) else {}
    if value and all(isinstance(inner, dict) for inner in value.values()):
        numbers = [str(number) for number in range(len(next(iter(value.values()))))]
        if numbers and all(_is_numbered(inner, numbers) for inner in value.values()):
            return {key: list(inner.values()) for key, inner in value.items()}
    return {}


def _is_numbered(column: Mapping[str, Any], numbers: Sequence[str]) -> bool:
    return list(column) == numbers and not any(isinstance(inner, dict) for inner in column.values())


def _has_columns_of_content(value: Mapping[str, Any]) -> bool:
    return any(key.casefold() in CONTENT and inner and isinstance(inner[0], str) for key, inner in value.items())


def _table(columns: Mapping[str, list[Any]], path: Path, line: int) -> Found:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        sizes = ", ".join(f"{column_names([name])} {len(column):,}" for name, column in columns.items())
        what = f"a table by columns, whose columns differ in length: {sizes}"
        raise DataError(what, where=f"{path}:{line}", fix="write each column with a value, or null, for each row")
    rows = zip(*columns.values(), strict=True)
    return Found(
        records=tuple((f"row {number}", dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, 1))
    )


def _is_split(value: Mapping[str, Any]) -> bool:
    """Whether an object is a table as pandas splits it."""
    names, rows = value.get("columns"), value.get("data")
    return (
        value.keys() <= {"columns", "index", "data"}
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(rows, list)
        and all(isinstance(row, list) for row in rows)
    )


def _split_table(value: Mapping[str, Any], path: Path) -> Found:
    names = value["columns"]
    for number, row in enumerate(value["data"], 1):
        if len(row) != len(names):
            what = f"expected {len(names)} values ({column_names(names)}), got {len(row)}"
            raise DataError(what, where=f"{path}, row {number}", fix="write the file again")
    return Found(
        records=tuple(
            (f"row {number}", dict(zip(names, row, strict=True))) for number, row in enumerate(value["data"], 1)
        )
    )
