"""BioC, XML or JSON: documents with passages and annotations; each document is one Annotated.

JSON is a collection, a list of collections or documents, a document, or one of these on each line; an export of
PubTator 3 is read too. A document's text is its passages (or their sentences) at their stated offsets, with gaps filled
by blanks. So an annotation's location is a slice of the text. Where the offsets of passages do not fit each other, and
the annotations prove that each passage counts on its own, the passages are joined by one blank. Offsets count
characters, or UTF-8 bytes or UTF-16 units as some tools write; the annotations' texts prove in which. A mention in
several pieces is not one slice: it is left out and counted, and so is one that does not fit its text. The annotation's
infon `type` is the span's type. Format: https://bioc.sourceforge.net. License and access are those of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from lora_med.data.formats.archives import FIX, Document, is_xml, outcomes_of, xml_root
from lora_med.data.formats.entities.bioc_json import json_documents
from lora_med.data.formats.entities.mentions import Mention, Placement, laid_out, place_mentions
from lora_med.data.formats.row_fields import Wrong
from lora_med.data.formats.tables import is_encodable
from lora_med.data.outcome import Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Annotated
from lora_med.errors import DataError

SUFFIXES = (".bioc.xml", ".bioc.json", ".xml", ".json", ".jsonl", ".ndjson")
LONGEST_GAP = 1 << 16  # characters between two passages
MEASURES = (0, 2, 1)  # characters, UTF-8 bytes, UTF-16 units
LARGEST = 1 << 40


@dataclass(frozen=True, slots=True)
class _TextPart:
    """A passage or sentence: its stated offset, its text, and the mentions of its annotations."""

    offset: int
    text: str
    mentions: tuple[Mention, ...]


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The documents of the files. Drops: no_text; with an error: bad, damaged_file."""
    return outcomes_of(inputs, SUFFIXES, _collection)


def _collection(document: Document) -> Iterator[Outcome]:
    items = _from_xml(document) if is_xml(document) else json_documents(document)
    for number, values in enumerate(items, 1):
        if isinstance(values, Drop):
            yield values
            continue
        where = f"{document.where}, document {number}"
        try:
            yield from _annotated(values, where)
        except Wrong as wrong:
            yield Drop("bad", DataError(str(wrong), where=where, fix=FIX))


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
            values[name] = _number(value.strip()) if name == "offset" else value
    for name in ("passage", "sentence", "annotation"):
        values[f"{name}s"] = [_element(child) for child in node.iterfind(name)]
    values["locations"] = [{key: _number(text) for key, text in child.items()} for child in node.iterfind("location")]
    return values


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 13 else text


def _annotated(values: Mapping[str, Any], where: str) -> Iterator[Outcome]:
    name = _name(values)
    passages = _objects(values, "passages")
    parts = [part for passage in passages for part in _text_parts(passage)]
    if not any(part.text.strip() for part in parts):
        yield Drop("no_text")
        return
    mentions = [mention for part in parts for mention in part.mentions]
    mentions += [_mention(item) for item in _objects(values, "annotations")]
    if mentions and not any(mention.type for mention in mentions):
        raise Wrong("expected an annotation with an infon of the key type")
    placement = _placed(parts, mentions)
    if len(mentions) > 1 and not placement.spans and "text_differs" in placement.unfit:
        raise Wrong(f"none of the {len(mentions)} annotations has the text at its location")
    yield from placement.part_drops(where)
    yield Annotated(f"bioc:{name}", name, "bioc", placement.text, placement.spans)


def _name(values: Mapping[str, Any]) -> str:
    """A document's identifier; an export of PubTator 3 may state it as PMID|PMC."""
    name = values.get("id")
    if name is None and isinstance(values.get("_id"), str):
        parts = [part for part in values["_id"].split("|") if part not in ("", "None")]
        name = parts[0] if parts else None
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise Wrong("expected a document with an id")
    if not is_encodable(str(name)):
        raise Wrong("expected a document's id in UTF-8")
    return str(name).strip()


def _objects(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    objects = values.get(name) or []
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise Wrong(f"{name}: expected a list of objects")
    return objects


def _text_parts(passage: Mapping[str, Any]) -> Iterator[_TextPart]:
    sentences = _objects(passage, "sentences")
    holders = [passage] if passage.get("text") else sentences
    if not holders and _objects(passage, "annotations"):
        raise Wrong("expected a passage with annotations to have a text")
    for part in holders:
        offset, text = part.get("offset"), part.get("text") or ""
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < LARGEST:
            raise Wrong("expected a passage with an offset")
        if not isinstance(text, str) or not is_encodable(text):
            raise Wrong("expected a passage with a text")
        within = sentences if part is passage else [passage] if part is holders[0] else []
        annotations = [item for holder in (part, *within) for item in _objects(holder, "annotations")]
        yield _TextPart(offset, text, tuple(map(_mention, annotations)))


def _mention(values: Mapping[str, Any]) -> Mention:
    infons = values.get("infons")
    kind = infons.get("type") if isinstance(infons, dict) else None
    text = values.get("text")
    if not isinstance(text, str | None):
        raise Wrong("expected an annotation with a text")
    pieces: list[tuple[int, int]] = []
    for location in _objects(values, "locations"):
        offset, length = location.get("offset"), location.get("length")
        if not _is_count(offset) or not _is_count(length):
            raise Wrong("expected an annotation's locations to be an offset and a length each")
        pieces.append((offset, offset + length))
    return Mention(kind.strip() if isinstance(kind, str) else "", tuple(pieces), text)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _placed(parts: Sequence[_TextPart], mentions: Sequence[Mention]) -> Placement:
    """The document with its mentions: by the layout that places most of them, the first of equals."""
    texts = [laid_out([(part.offset, part.text) for part in parts], LONGEST_GAP, measure) for measure in MEASURES]
    layouts = [place_mentions(text, mentions) for text in dict.fromkeys(texts) if text is not None]
    if layouts:
        return max(layouts, key=lambda placement: len(placement.spans))
    joined, shifted = " ".join(part.text for part in parts), list[Mention]()
    begin = 0
    for part in parts:
        for mention in part.mentions:
            pieces = tuple((start - part.offset + begin, end - part.offset + begin) for start, end in mention.pieces)
            shifted.append(replace(mention, pieces=pieces))
        begin += len(part.text) + 1
    placement = place_mentions(joined, shifted)
    proven = [mention for mention in mentions if mention.text is not None]
    if len(shifted) < len(mentions) or not proven or len(placement.spans) < len(proven):
        raise Wrong("the passages overlap, or are far from each other: their offsets do not fit their texts")
    return placement
