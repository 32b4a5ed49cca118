"""BioC, XML or JSON: documents of passages with annotations, one Annotated a document.

A document's text is its passages (or their sentences) set at the offsets they state, gaps filled with blanks, so that
an annotation's location is a slice of it. Offsets count characters, or bytes of UTF-8 as some tools write: the whole
document is read as that which all of its annotations fit. A mention in several pieces, which no slice can be, is left
out and counted in the log. The annotation's infon `type` is the span's type. Format: https://bioc.sourceforge.net.
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
from lora_med.data.formats.tables import load_json, sound
from lora_med.data.outcome import Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Annotated, Span
from lora_med.errors import DataError

logger = logging.getLogger(__name__)
SUFFIXES = (".bioc.xml", ".bioc.json", ".xml", ".json")
LONGEST_GAP = 1 << 16  # characters between two passages


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A passage or sentence: where it says it stands, and what it says."""

    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class _Mention:
    type: str
    text: str
    places: tuple[tuple[int, int], ...]  # (offset, length)


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The documents of the files. Drops: no_text; with an error: bad, damaged_file."""
    return outcomes_of(inputs, SUFFIXES, _collection)


def _collection(document: Document) -> Iterator[Outcome]:
    found = _from_xml(document) if is_xml(document) else _from_json(document)
    for place, values in enumerate(found, 1):
        where = f"{document.where}, document {place}"
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
        found = collection.get("documents") if isinstance(collection, dict) else None
        if not isinstance(found, list):
            raise DataError("expected a BioC collection with documents", where=document.where, fix=FIX)
        yield from (item if isinstance(item, dict) else {} for item in found)


def _from_xml(document: Document) -> Iterator[Mapping[str, Any]]:
    root = xml_root(document)
    if root.tag != "collection":
        raise DataError("expected a BioC collection", where=f"{document.where}:1", fix=FIX)
    return (_element(node) for node in root.iterfind("document"))


def _element(node: Any) -> dict[str, Any]:
    """A BioC element in the shape that BioC's JSON has."""
    values: dict[str, Any] = {"infons": {child.get("key"): child.text for child in node.iterfind("infon")}}
    for name in ("id", "offset", "text"):
        if (found := node.findtext(name)) is not None:
            values[name] = int(found) if name == "offset" and found.strip().isdecimal() else found
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
    layouts = _layouts([stretch for passage in passages for stretch in _stretches(passage)])
    if not layouts[0].strip():
        return Drop("no_text")
    holders = [values, *passages, *(part for passage in passages for part in _objects(passage, "sentences"))]
    mentions = [_mention(item) for holder in holders for item in _objects(holder, "annotations")]
    whole = [mention for mention in mentions if len(mention.places) == 1]
    if count := len(mentions) - len(whole):
        logger.warning("%s: %d annotations in no place or in several are left out: no slice is one", where, count)
    for text in layouts:
        spans = _spans(whole, text)
        if spans is not None:
            return Annotated(f"bioc:{name}", name, "bioc", text, spans)
    raise Wrong("an annotation's text is not what stands at its location")


def _objects(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = values.get(name) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Wrong(f"{name}: expected a list of objects")
    return found


def _stretches(passage: Mapping[str, Any]) -> Iterator[_Stretch]:
    for part in [passage] if passage.get("text") else _objects(passage, "sentences"):
        offset, text = part.get("offset"), part.get("text") or ""
        if not isinstance(offset, int) or offset < 0 or not isinstance(text, str) or not sound(text):
            raise Wrong("expected a passage with an offset and a text")
        yield _Stretch(offset, text)


def _layouts(stretches: Sequence[_Stretch]) -> list[str]:
    """The text with each stretch at its offset: in characters, and in bytes of UTF-8, where they fit so."""
    found: list[str] = []
    for measure in (len, lambda text: len(text.encode("utf-8"))):
        parts: list[str] = []
        end = 0
        for stretch in stretches:
            gap = stretch.offset - end
            if not 0 <= gap <= LONGEST_GAP:
                break
            parts += [" " * gap, stretch.text]
            end = stretch.offset + measure(stretch.text)
        else:
            found.append("".join(parts))
    if not found:
        raise Wrong("the passages overlap, or stand far apart: their offsets do not fit their texts")
    return list(dict.fromkeys(found))


def _mention(values: Mapping[str, Any]) -> _Mention:
    infons = values.get("infons")
    kind = infons.get("type") if isinstance(infons, dict) else None
    text = values.get("text")
    if not isinstance(kind, str) or not kind.strip() or not isinstance(text, str):
        raise Wrong("expected an annotation with a text and an infon of the key type")
    places = tuple((place.get("offset"), place.get("length")) for place in _objects(values, "locations"))
    if not all(isinstance(number, int) and number >= 0 for place in places for number in place):
        raise Wrong("expected an annotation's locations to be an offset and a length each")
    return _Mention(kind.strip(), text, places)  # type: ignore[arg-type]


def _spans(mentions: Sequence[_Mention], text: str) -> tuple[Span, ...] | None:
    """The spans, by offsets in characters or, if not all mentions stand there, in bytes of UTF-8; else None."""
    by_byte = [place for place, letter in enumerate(text) for _ in letter.encode("utf-8", "surrogatepass")]
    for ends in (range(len(text) + 1), [*by_byte, len(text)]):
        found = [_span(mention, text, ends) for mention in mentions]
        if all(found):
            return tuple(span for span in found if span is not None)
    return None


def _span(mention: _Mention, text: str, ends: Sequence[int]) -> Span | None:
    ((offset, length),) = mention.places
    if not length or offset + length >= len(ends):
        return None
    start, end = ends[offset], ends[offset + length]
    stands = text[start:end]
    fits = stands.strip() and stands.split() == mention.text.split()
    return Span(start, end, mention.type, stands) if fits else None
