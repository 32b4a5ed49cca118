"""Records as JSON lines that give back the same records, every field of them, unlike those of `data read`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

from lora_med.data.record import Annotated, Bibliography, Pair, Passage, Question, Record, Section, Span, Term

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Passage, Question, Annotated, Pair)}


def write_records(stream: BinaryIO, records: Iterable[Record]) -> None:
    """Write one line for each record."""
    for record in records:
        stream.write(json.dumps([type(record).__name__, asdict(record)]).encode() + b"\n")


def read_records(lines: Iterable[bytes]) -> Iterator[Record]:
    """The records of such lines.

    Raises:
        ValueError, KeyError, TypeError: a line is not one of `write_records`.
    """
    for line in lines:
        kind, fields = json.loads(line)
        yield KINDS[kind](**{name: _value(name, value) for name, value in fields.items()})


def _value(name: str, value: Any) -> Any:
    if name == "sections":
        return tuple(Section(**each) for each in value)
    if name == "spans":
        return tuple(Span(**each) for each in value)
    if name == "about" and value is not None:
        terms = {key: tuple(Term(**each) for each in value[key]) for key in ("publication_types", "mesh")}
        return Bibliography(**(value | terms | {"languages": tuple(value["languages"])}))
    return (
        tuple(tuple(each) if isinstance(each, list) else each for each in value) if isinstance(value, list) else value
    )
