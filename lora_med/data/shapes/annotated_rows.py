"""Annotated rows of one's own: columns under the names of `data.columns`, read as annotation tools write them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lora_med.data.record import Annotated
from lora_med.data.shapes.annotations import annotated_columns, annotated_shape, read_annotated
from lora_med.data.shapes.columns.row_columns import ANNOTATED, Layout, Row
from lora_med.data.shapes.recognize import Shape

LISTS = {*ANNOTATED, "label", "labels", "words", "passages", "annotations", "completions"}
MAPPABLE = {"uid", "group", "title", "text", "label", *ANNOTATED}


def annotated(row: Row) -> Shape | None:
    """The shape of a row with mentions; None for another, and where `data.columns` names the fields of another."""
    mapping = row.layout.mapping
    if not row.layout.found("mentions", lambda: _may_have_mentions(row.layout)):
        return None
    values = {name: value for name, value in row.values.items() if name not in row.layout.ignored}
    values |= {name: row.values[column] for name, column in mapping.items() if column in row.values}
    name = annotated_shape(values)
    return Shape((name,), partial(_record, name, values), is_annotated=True) if name else None


def _may_have_mentions(layout: Layout) -> bool:
    """Whether the columns are those of annotated rows; what they hold decides."""
    return layout.mapping.keys() <= MAPPABLE and not LISTS.isdisjoint((*layout.names, *layout.mapping))


def _record(name: str, values: Mapping[str, Any], row: Row) -> Annotated:
    for column in annotated_columns(name, values):
        row.used[row.layout.mapping.get(column, column)] = column
    text, spans, parts = read_annotated(name, values, row.where, row.class_names())
    row.parts.extend(parts)
    return Annotated(row.uid(), row.group(text), "custom", text, spans)


def without_mentions(row: Row) -> Annotated:
    """A text whose list of mentions is empty, of a file in which other rows have some."""
    row.get("label")
    text = row.text("text")
    return Annotated(row.uid(), row.group(text), "custom", text)
