"""BioC, XML or JSON: documents with passages and annotations; each document is one Annotated.

A document's text is its passages (or their sentences) at their stated offsets, with gaps filled by blanks. So an
annotation's location is a slice of the text. Offsets count characters, or UTF-8 bytes as some tools write; a document
is read in the unit that fits all of its annotations. A mention in several pieces is not one slice: it is left out and
counted in the log. The annotation's infon `type` is the span's type. Format: https://bioc.sourceforge.net.
License and access are those of the corpus.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.data.formats.archives import FIX, Document, is_xml, outcomes_of, xml_root
from lora_med.data.formats.row_fields import Wrong
from lora_med.data.formats.tables import is_encodable, load_json
from lora_med.data.outcome import Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Annotated, Span
from lora_med.errors import DataError

logger = logging.getLogger(__name__)
SUFFIXES = (".bioc.xml", ".bioc.json", ".xml", ".json")
LONGEST_GAP = 1 << 16  # characters between two passages


@dataclass(frozen=True, slots=True)
class _TextPart:
    """A passage or sentence: its stated offset, and its text."""

    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class _Mention:
    type: str
    text: str
    locations: tuple[tuple[int, int], ...]  # (offset, length)


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The documents of the files. Drops: no_text; with an error: bad, damaged_file."""
    return outcomes_of(inputs, SUFFIXES, _collection)


def _collection(document: Document) -> Iterator[Outcome]:
    items = _from_xml(document) if is_xml(document) else _from_json(document)
    for number, values in enumerate(items, 1):
        where = f"{document.where}, document {number}"
        try:
            yield _annotated(values, where)
        except Wrong as wrong:
            yield Drop("bad", DataError(str(wrong), where=where, fix=FIX))


def _from_json(document: Document) -> Iterator[Mapping[str, Any]]:
    value = load_json(io.BytesIO(document.content), Path(document.where))
    if isinstance(value, dict) and "passages" in value:
        value = {"documents": [value]}
    collections = value if isinstance(value, list) else [value]
    for collection in collections:
        items = collection.get("documents") if isinstance(collection, dict) else None
        if not isinstance(items, list):
            raise DataError("expected a BioC collection with documents", where=document.where, fix=FIX)
        yield from (item if isinstance(item, dict) else {} for item in items)


def _from_xml(document: Document) -> Iterator[Mapping[str, Any]]:
    root = xml_root(document)
    if root.tag != "collection":
        raise DataError("expected a BioC collection", where=f"{document.where}:1", fix=FIX)
    return (_element(node) for node in root.iterfind("document"))


def _element(node: Any) -> dict[str, Any]:
    """A BioC XML element in the form of BioC's JSON."""
    values: dict[str, Any] = {"infons": {child.get("key"): child.text for child in node.iterfind("infon")}}
    for name in ("id", "offset", "text"):
        if (value := node.findtext(name)) is not None:
            values[name] = int(value) if name == "offset" and value.strip().isdecimal() else value
    for name in ("passage", "sentence", "annotation"):
        values[f"{name}s"] = [_element(child) for child in node.iterfind(name)]
    values["locations"] = [{key: _number(text) for key, text in child.items()} for child in node.iterfind("location")]
    return values


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


def _annotated(values: Mapping[str, Any], where: str) -> Outcome:
    name = values.get("id")
    if not isinstance(name, str | int) or not str(name).strip():
        raise Wrong("expected a document with an id")
    name = str(name).strip()
    passages = _objects(values, "passages")
    layouts = _layouts([text_part for passage in passages for text_part in _text_parts(passage)])
    if not layouts[0].strip():
        return Drop("no_text")
    holders = [values, *passages, *(part for passage in passages for part in _objects(passage, "sentences"))]
    mentions = [_mention(item) for holder in holders for item in _objects(holder, "annotations")]
    single_slices = [mention for mention in mentions if len(mention.locations) == 1]
    if count := len(mentions) - len(single_slices):
        logger.warning(
            "%s: %d annotations with no location or several are left out: they are not one slice of the text",
            where,
            count,
        )
    for text in layouts:
        spans = _spans(single_slices, text)
        if spans is not None:
            return Annotated(f"bioc:{name}", name, "bioc", text, spans)
    raise Wrong("an annotation's text is not the text at its location")


def _objects(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    objects = values.get(name) or []
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise Wrong(f"{name}: expected a list of objects")
    return objects


def _text_parts(passage: Mapping[str, Any]) -> Iterator[_TextPart]:
    for part in [passage] if passage.get("text") else _objects(passage, "sentences"):
        offset, text = part.get("offset"), part.get("text") or ""
        if not isinstance(offset, int) or offset < 0 or not isinstance(text, str) or not is_encodable(text):
            raise Wrong("expected a passage with an offset and a text")
        yield _TextPart(offset, text)


def _layouts(text_parts: Sequence[_TextPart]) -> list[str]:
    """The possible texts with each passage at its offset: counted in characters, and in UTF-8 bytes, where they fit."""
    layouts: list[str] = []
    for measure in (len, lambda text: len(text.encode("utf-8"))):
        pieces: list[str] = []
        end = 0
        for text_part in text_parts:
            gap = text_part.offset - end
            if not 0 <= gap <= LONGEST_GAP:
                break
            pieces += [" " * gap, text_part.text]
            end = text_part.offset + measure(text_part.text)
        else:
            layouts.append("".join(pieces))
    if not layouts:
        raise Wrong("the passages overlap, or are far from each other: their offsets do not fit their texts")
    return list(dict.fromkeys(layouts))


def _mention(values: Mapping[str, Any]) -> _Mention:
    infons = values.get("infons")
    kind = infons.get("type") if isinstance(infons, dict) else None
    text = values.get("text")
    if not isinstance(kind, str) or not kind.strip() or not isinstance(text, str):
        raise Wrong("expected an annotation with a text and an infon of the key type")
    locations = tuple((location.get("offset"), location.get("length")) for location in _objects(values, "locations"))
    if not all(isinstance(number, int) and number >= 0 for location in locations for number in location):
        raise Wrong("expected an annotation's locations to be an offset and a length each")
    return _Mention(kind.strip(), text, locations)  # type: ignore[arg-type]


def _spans(mentions: Sequence[_Mention], text: str) -> tuple[Span, ...] | None:
    """The spans, by offsets in characters or, if not all mentions fit, in UTF-8 bytes; else None."""
    by_byte = [index for index, letter in enumerate(text) for _ in letter.encode("utf-8", "surrogatepass")]
    for ends in (range(len(text) + 1), [*by_byte, len(text)]):
        spans = [_span(mention, text, ends) for mention in mentions]
        if all(spans):
            return tuple(span for span in spans if span is not None)
    return None


def _span(mention: _Mention, text: str, ends: Sequence[int]) -> Span | None:
    ((offset, length),) = mention.locations
    if not length or offset + length >= len(ends):
        return None
    start, end = ends[offset], ends[offset + length]
    text_at_location = text[start:end]
    fits = text_at_location.strip() and text_at_location.split() == mention.text.split()
    return Span(start, end, mention.type, text_at_location) if fits else None
