"""The resources in FHIR's JSON, R4 and its neighbors, and whose they are.

A bundle gives its entries, also those of bundles within it; an array its items. A patient is named by the reference
of the subject, without server and version, so that `Patient/p1` is one patient in a bundle and in a bulk export.
`urn:uuid:` is looked up in the bundle, `#p` in the resource itself. Format: https://hl7.org/fhir/R4/references.html
and bundle.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lora_med.data.formats.tables import is_encodable

PATIENT = re.compile(r"(?:\S{0,400}/)?(Patient/[A-Za-z0-9.\-]{1,64})(?:/_history/\S{1,64})?")
NAME = re.compile(r"[A-Za-z0-9.\-_]{1,64}")
TYPE = re.compile(r"[A-Z][A-Za-z]{2,40}")
MOST_DEPTH = 20  # of bundles within bundles
MOST_REFERENCE = 500  # characters

Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlacedResource:
    """A resource, its path among the entries (such as `3` or `3.2`), and the resources that references may mean.

    `bundle` is the path of its bundle, empty for the outermost and for a resource in none.
    """

    resource: Any
    path: str
    bundle: str
    scope: Mapping[str, Resource]


def resources_in(value: Any, path: str = "", depth: int = 0) -> Iterator[PlacedResource]:
    """The resources of a value: itself, the items of an array, or a bundle's entries; what is none stays as it is."""
    if isinstance(value, list) and depth < MOST_DEPTH:
        for number, item in enumerate(value, 1):
            yield from resources_in(item, f"{path}.{number}" if path else str(number), depth + 1)
    elif isinstance(value, dict) and value.get("resourceType") == "Bundle" and depth < MOST_DEPTH:
        entries = objects(value, "entry")
        scope = _scope(entries)
        for number, entry in enumerate(entries, 1):
            inner = f"{path}.{number}" if path else str(number)
            resource = entry.get("resource")
            if isinstance(resource, dict) and resource.get("resourceType") == "Bundle":
                yield from resources_in(resource, inner, depth + 1)
            elif resource is not None:
                yield PlacedResource(resource, inner, path, scope)
    else:
        yield PlacedResource(value, path, "", {})


def objects(values: Resource, name: str) -> list[Resource]:
    """The objects in a list; what is no object is left out."""
    items = values.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def text_of(values: Any, *path: str) -> str:
    """The text at a path of keys; empty where there is none."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, str) and is_encodable(values) else ""


def concept(values: Resource, name: str) -> str:
    """The words of a coded concept: its text, or the display of its first code that has one."""
    value = values.get(name)
    if not isinstance(value, dict):
        return ""
    displays = (text_of(coding, "display") for coding in objects(value, "coding"))
    return " ".join((text_of(value, "text") or next(filter(None, displays), "")).split())


def resource_name(resource: Resource) -> str:
    """`Type/id`, or the type alone where there is no id; for messages and identifiers."""
    name = text_of(resource, "id")
    return f"{resource_type(resource)}/{name}" if NAME.fullmatch(name) else resource_type(resource)


def resource_type(resource: Any) -> str:
    """The type of a resource, empty where it names none."""
    name = text_of(resource, "resourceType")
    return name if TYPE.fullmatch(name) else ""


def referred(reference: str, scope: Mapping[str, Resource]) -> Resource | None:
    """The resource that a reference means, among those of its bundle."""
    return scope.get(reference) or scope.get("/".join(reference.split("/")[-2:]))


def patient_of(resource: Resource, scope: Mapping[str, Resource]) -> str | None:
    """The patient whom a resource is about; None where its subject is missing, or no patient."""
    subject = resource.get("subject")
    reference = text_of(subject, "reference").strip()[:MOST_REFERENCE]
    if reference.startswith("#"):
        contained = objects(resource, "contained")
        inner = next((item for item in contained if text_of(item, "id") == reference[1:]), None)
        return _patient_itself(inner, None) if inner is not None else None
    if (named := PATIENT.fullmatch(reference)) is not None:
        return named[1]
    meant = referred(reference, scope) if reference else None
    if meant is not None:
        return _patient_itself(meant, reference)
    if reference.startswith(("urn:", "Patient?")) and text_of(subject, "type") in ("", "Patient"):
        return reference
    identifier = subject.get("identifier") if isinstance(subject, dict) and not reference else None
    return _identified(identifier) if text_of(subject, "type") in ("", "Patient") else None


def _patient_itself(resource: Resource, reference: str | None) -> str | None:
    """The name of a resource that must be a patient: by its id, else its first identifier, else `reference`."""
    if resource_type(resource) != "Patient":
        return None
    if reference is not None and NAME.fullmatch(text_of(resource, "id")):
        return resource_name(resource)
    identifiers = (_identified(item) for item in objects(resource, "identifier"))
    return next(filter(None, identifiers), reference)


def _identified(identifier: Any) -> str | None:
    value = identifier.get("value") if isinstance(identifier, dict) else None
    value = str(value) if isinstance(value, int) else text_of(identifier, "value").strip()
    return f"{text_of(identifier, 'system').strip()}|{value}" if value else None


def _scope(entries: list[Resource]) -> dict[str, Resource]:
    """The resources of a bundle by full URL and by `Type/id`."""
    scope: dict[str, Resource] = {}
    for entry in entries:
        resource = entry.get("resource")
        if isinstance(resource, dict):
            names = (text_of(entry, "fullUrl"), resource_name(resource))
            scope.update({name: resource for name in names if name and ("/" in name or ":" in name)})
    return scope
