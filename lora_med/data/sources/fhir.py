"""FHIR: the clinical texts in bundles, NDJSON of a bulk export, arrays and single resources, one Passage a document.

DocumentReference (its attachment), DiagnosticReport (presented form and conclusion) and Composition (its sections) hold
texts; resources of other types are left out and counted by type. An attachment is plain text, HTML or a C-CDA document,
in base64 or as a Binary of the same bundle. Of several formats of one document the plainest is read. RTF, PDF and
pictures are refused by name; an attachment that only names a URL is counted, and nothing is fetched.

The group is the patient: a resource without one is refused, for it could stand in two splits. Resources that were
entered in error, or superseded, are dropped. Of a resource in several versions within one bundle the newest is kept.
FHIR R4, https://hl7.org/fhir/R4. These are patients' data: the source is credentialed. License: that of
the hospital's agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.data.formats.documents.attachments import NotText, attached_sections, from_base64
from lora_med.data.formats.documents.fhir_resources import (
    PlacedResource,
    Resource,
    concept,
    objects,
    patient_of,
    referred,
    resource_name,
    resource_type,
    resources_in,
    text_of,
)
from lora_med.data.formats.documents.json_values import FIX, JsonValue, json_values
from lora_med.data.formats.documents.markup_lines import html_lines
from lora_med.data.formats.documents.unsupported_formats import UnsupportedFormat
from lora_med.data.outcome import Again, Drop, Input, Outcome, PartDrop, ReadOptions, input_names
from lora_med.data.record import Passage, Section
from lora_med.errors import DataError

SUFFIXES = (".json", ".ndjson", ".jsonl")
LEFT_OUT = {"entered-in-error": "entered_in_error", "superseded": "superseded", "cancelled": "cancelled"}
PLAINNESS = ("text/plain", "", "text/", "application/xhtml+xml", "text/html", "application/xml", "text/xml")
MOST_SECTION_DEPTH = 50
MOST_DIGITS = 18


@dataclass(slots=True)
class _Text:
    """What a resource gives: sections of its text, and what was left out of it, by reason."""

    sections: list[Section] = field(default_factory=list)
    refused: list[UnsupportedFormat] = field(default_factory=list)
    by_url: int = 0
    other_forms: int = 0


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The texts of the files. Drops: other_type_*, entered_in_error, superseded, cancelled, by_url, no_text; with an
    error: no_patient, unsupported_format, bad, bad_json, damaged_file. Left out within a text: attachments (by_url,
    unsupported_format, other_form). `data.encoding` is that of attachments which name no charset."""
    names, encoding = input_names(inputs), options.table.encoding

    def again() -> Iterator[Outcome]:
        for path in inputs:
            if isinstance(path, Path):
                newest = _newest_lines(path, names[path])
                for value in json_values(path, names[path], SUFFIXES):
                    yield from _outcomes(value, newest, encoding) if isinstance(value, JsonValue) else (value,)

    return Again(again)


def _newest_lines(path: Path, name: str) -> dict[tuple[str, str], int]:
    """File and `Type/id` -> the line of its newest version, of the resources that are lines of their own."""
    newest: dict[tuple[str, str], tuple[int, str, int]] = {}
    for value in json_values(path, name, SUFFIXES):
        if isinstance(value, JsonValue) and resource_type(value.value) in TEXTS:
            own = resource_name(value.value)
            if "/" in own:
                key = (*_version(value.value), value.number)
                newest[value.file, own] = max(newest.get((value.file, own), key), key)
    return {name: key[-1] for name, key in newest.items()}


def _outcomes(value: JsonValue, newest_lines: dict[tuple[str, str], int], encoding: str | None) -> Iterator[Outcome]:
    entries = list(resources_in(value.value))
    newest = _newest(entries)
    for number, entry in enumerate(entries):
        kind, name = resource_type(entry.resource), resource_name(entry.resource)
        line = value.number if entry.path else newest_lines.get((value.file, name), value.number)
        if kind in TEXTS and (newest.get((entry.bundle, name), number) != number or line != value.number):
            yield Drop("superseded")
        elif kind in TEXTS:
            yield from _text_outcomes(entry, value, name, encoding)
        elif kind:
            yield Drop(f"other_type_{kind}")
        else:
            where = f"{value.where}, entry {entry.path}" if entry.path else value.where
            what = "expected a FHIR resource: an object with a resourceType"
            yield Drop("bad", DataError(what, where=where, fix=FIX))


def _newest(entries: Sequence[PlacedResource]) -> dict[tuple[str, str], int]:
    """Bundle and `Type/id` -> the position of its newest version: by number and date of the version, else the last.

    Two bundles may use one id for two resources, so versions are sought within a bundle only.
    """
    newest: dict[tuple[str, str], tuple[int, str, int]] = {}
    for number, entry in enumerate(entries):
        name = resource_name(entry.resource)
        if "/" in name:
            key = (*_version(entry.resource), number)
            newest[entry.bundle, name] = max(newest.get((entry.bundle, name), key), key)
    return {name: key[-1] for name, key in newest.items()}


def _version(resource: Any) -> tuple[int, str]:
    """The number and the date of a resource's version."""
    version = text_of(resource, "meta", "versionId")
    rank = int(version) if version.isascii() and version.isdigit() and len(version) < MOST_DIGITS else 0
    return rank, text_of(resource, "meta", "lastUpdated")


def _text_outcomes(entry: PlacedResource, value: JsonValue, name: str, encoding: str | None) -> Iterator[Outcome]:
    resource = entry.resource
    label = name if "/" in name else f"{name} {entry.path or value.number}"
    where = f"{value.where}, {label}"
    reason = next((LEFT_OUT[text_of(resource, key)] for key in STATUS if text_of(resource, key) in LEFT_OUT), None)
    if reason is not None:
        yield Drop(reason)
        return
    patient = patient_of(resource, entry.scope)
    if patient is None:
        what = f"a {resource_type(resource)} whose subject is no patient: nothing says which split it belongs to"
        fix = "export it with its subject, or set data.skip_bad=true (--skip-bad), which drops and counts such records"
        yield Drop("no_patient", DataError(what, where=where, fix=fix))
        return
    try:
        text = TEXTS[resource_type(resource)](entry, where, encoding)
    except DataError as error:
        yield Drop("bad", error)
        return
    title = " ".join(text_of(resource, "title").split()) or concept(resource, "type") or concept(resource, "code")
    yield from _passage(text, Passage(_uid(entry, value, name), patient, "fhir", "", title), where)


def _uid(entry: PlacedResource, value: JsonValue, name: str) -> str:
    """The name of a text: its file, its id or its place, and its bundle where the file holds several."""
    if "/" not in name:
        return f"fhir:{value.file}:{value.number}.{entry.path}".removesuffix(".")
    bundle = f"{value.number}.{entry.bundle}".removesuffix(".") if entry.path else "1"
    return f"fhir:{value.file}:{'' if bundle == '1' else f'{bundle}/'}{name}"


def _passage(text: _Text, passage: Passage, where: str) -> Iterator[Outcome]:
    """The passage with its text, and what was left out of it; or why there is none."""
    if not text.sections:
        if text.refused:
            yield Drop("unsupported_format", text.refused[0].error(where))
        else:
            yield Drop("by_url" if text.by_url else "no_text")
        return
    words = "\n\n".join(f"{part.label}\n{part.text}" if part.label else part.text for part in text.sections)
    if "\x00" in words:
        yield Drop("bad", DataError("the text holds a NUL character: it is not plain text", where=where, fix=FIX))
        return
    yield Passage(passage.uid, passage.group, "fhir", words, passage.title, tuple(text.sections))
    left_out = {"attachment_by_url": text.by_url, "attachment_in_other_form": text.other_forms}
    left_out["attachment_of_unsupported_format"] = len(text.refused)
    for reason, count in left_out.items():
        for _ in range(count):
            yield PartDrop(reason, where)


def _document(entry: PlacedResource, where: str, encoding: str | None) -> _Text:
    contents = objects(entry.resource, "content")
    return _attached([content.get("attachment") for content in contents], entry, where, encoding)


def _report(entry: PlacedResource, where: str, encoding: str | None) -> _Text:
    text = _attached(objects(entry.resource, "presentedForm"), entry, where, encoding)
    conclusion = _plain(text_of(entry.resource, "conclusion"))
    words = {" ".join(section.text.split()) for section in text.sections}
    if conclusion and not any(" ".join(conclusion.split()) in text_words for text_words in words):
        text.sections.append(Section(conclusion, "Conclusion"))
    return text


def _composition(entry: PlacedResource, where: str, encoding: str | None) -> _Text:
    return _Text(list(_sections(entry.resource, 0)))


def _sections(resource: Resource, depth: int) -> Iterator[Section]:
    for section in objects(resource, "section"):
        text = html_lines(text_of(section, "text", "div"))
        title = " ".join(text_of(section, "title").split()).rstrip(":") or concept(section, "code")
        if text:
            yield Section(text, title or None)
        if depth < MOST_SECTION_DEPTH:
            yield from _sections(section, depth + 1)


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _attached(attachments: Sequence[Any], entry: PlacedResource, where: str, encoding: str | None) -> _Text:
    """The text of the attachments: they are one document in several forms, of which the plainest is read."""
    result = _Text()
    forms: dict[str, list[Section]] = {}
    for attachment in (item for item in attachments if isinstance(item, dict)):
        data, media = _data(attachment, entry)
        if not data:
            result.by_url += bool(text_of(attachment, "url"))
            continue
        try:
            sections = attached_sections(from_base64(data, where), media, where, encoding)
        except NotText as error:
            result.refused.append(error.form)
            continue
        if sections:
            forms.setdefault(media.partition(";")[0].strip().lower(), []).extend(sections)
    plainest = min(forms, key=_plainness, default=None)
    if plainest is not None:
        result.sections = list(dict.fromkeys(forms.pop(plainest)))
        result.other_forms = len(forms)
    return result


def _data(attachment: Resource, entry: PlacedResource) -> tuple[str, str]:
    """`(base64, media type)` of an attachment, or of the Binary of the same bundle that its URL names."""
    data, media = text_of(attachment, "data"), text_of(attachment, "contentType")
    binary = None if data else referred(text_of(attachment, "url"), entry.scope)
    if binary is not None and resource_type(binary) == "Binary":
        return text_of(binary, "data"), media or text_of(binary, "contentType")
    return data, media


def _plainness(media: str) -> int:
    return next(
        (rank for rank, start in enumerate(PLAINNESS) if media == start or (start and media.startswith(start))), 9
    )


STATUS = ("status", "docStatus")
TEXTS: dict[str, Callable[[PlacedResource, str, str | None], _Text]] = {
    "DocumentReference": _document,
    "DiagnosticReport": _report,
    "Composition": _composition,
}
