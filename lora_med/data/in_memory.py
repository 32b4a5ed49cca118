"""Rows that are in memory: a `datasets.Dataset`, a list of dicts, or a list of Records, as an input beside files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_med.data.record import Annotated, Pair, Passage, Question, Record
from lora_med.errors import DataError, SettingsError

RECORDS = (Annotated, Pair, Passage, Question)


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """Rows of one split that the caller holds; `sha256` is of their content, so a resumed run recognizes them."""

    name: str
    rows: Sequence[Any] = field(repr=False)
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} (in memory)"

    @property
    def holds_records(self) -> bool:
        """Whether the rows are Records, which need no reading."""
        return isinstance(self.rows[0], RECORDS)

    def records(self) -> Iterator[Record]:
        """The rows as the Records that they are."""
        yield from self.rows


def memory_rows(name: str, rows: Any, *, source: str) -> MemoryRows:
    """`rows` as an input of the source called `source`.

    Args:
        name: of the split, "train" or "validation".
        rows: a `datasets.Dataset`, or a sequence of mappings or of Records; all of one kind.

    Raises:
        SettingsError: rows of another type, mixed rows, or Records of another source.
        DataError: no rows.
    """
    if isinstance(rows, str | bytes | Mapping) or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        raise SettingsError(
            f"{name}= cannot be a {type(rows).__name__}",
            where=f"{name}=",
            fix="give a datasets.Dataset (one split), a list of dicts, or a list of lora_med Records",
        )
    if not len(rows):
        raise DataError(f"{name}= holds no rows", where=f"{name}=", fix="give at least one row")
    digest, kinds = hashlib.sha256(), set[str]()
    for row in rows:
        kinds.add(_kind(row))
        digest.update(_canonical(row))
    if len(kinds) > 1 or not kinds <= {"dict", "Record"}:
        raise SettingsError(
            f"{name}= holds rows of type {', '.join(sorted(kinds))}",
            where=f"{name}=",
            fix="give dicts alone, or lora_med Records alone",
        )
    sources = {row.source for row in rows} if kinds == {"Record"} else {source}
    if sources != {source}:
        raise SettingsError(
            f"the Records of {name}= say they are from {', '.join(sorted(sources))}, and data.source is {source!r}",
            where="data.source",
            fix=f"data.source={min(sources)}: the source decides license, access class and template",
        )
    return MemoryRows(name, rows, digest.hexdigest())


def _kind(row: Any) -> str:
    if isinstance(row, RECORDS):
        return "Record"
    return "dict" if isinstance(row, Mapping) else type(row).__name__


def _canonical(row: Any) -> bytes:
    unshown = row.reasoning + row.rejected if isinstance(row, Pair) else ""
    values = dict(row) if isinstance(row, Mapping) else repr(row) + unshown
    return json.dumps(values, sort_keys=True, ensure_ascii=True, default=str).encode() + b"\n"
