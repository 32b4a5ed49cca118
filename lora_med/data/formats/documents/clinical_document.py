"""Documents of HL7's Clinical Document Architecture (CDA, C-CDA): whose they are, and the sections of their body.

Only the body's titles and texts are read; of the header, the patient's identifier, the document's title and its type.
Names, addresses and authors are never read. Format: https://hl7.org/cda/stds/core, namespace `urn:hl7-org:v3`;
elements of other namespaces (`sdtc`) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lora_med.data.formats.documents.markup_lines import markup_lines
from lora_med.data.record import Section

HL7 = "{urn:hl7-org:v3}"
SOCIAL_SECURITY = "2.16.840.1.113883.4.1:"  # the root of these numbers


def clinical_documents(root: Any) -> list[Any]:
    """The ClinicalDocument elements at or below `root`, their own namespace taken off all names."""
    for node in root.iter(f"{HL7}*"):
        node.tag = node.tag.removeprefix(HL7)
    return list(root.iter("ClinicalDocument"))


def patient_of(document: Any) -> str | None:
    """The identifier of the patient, `root:extension`; None where the record target has none.

    Of several, the first that has an extension: the others name only who issues identifiers. A US social security
    number is taken only where there is no other.
    """
    identifiers = [identifier(node) for node in document.iterfind("recordTarget/patientRole/id")]
    return min(filter(None, identifiers), key=_rank, default=None)


def _rank(name: str) -> int:
    return 2 if ":" not in name else int(name.startswith(SOCIAL_SECURITY))


def identifier(node: Any) -> str | None:
    """`root:extension` of an `id` element, or its root alone; None where it is marked as unknown."""
    root, extension = ((node.get(name) or "").strip() for name in ("root", "extension"))
    if node.get("nullFlavor") or not (root or extension):
        return None
    return f"{root}:{extension}" if extension else root


def title_of(document: Any) -> str:
    """The document's title, or the name of its type."""
    title = document.find("title")
    code = document.find("code")
    text = "" if title is None else " ".join("".join(title.itertext()).split())
    return text or ("" if code is None else " ".join((code.get("displayName") or "").split()))


def sections_of(document: Any) -> list[Section]:
    """The sections of the structured body that have a text, in order, each with its own title."""
    return [section for node in document.iterfind("component/structuredBody") for section in _inside(node)]


def _inside(node: Any) -> Iterator[Section]:
    for section in node.iterfind("component/section"):
        heading, code, text = section.find("title"), section.find("code"), section.find("text")
        title = "" if heading is None else " ".join("".join(heading.itertext()).split()).rstrip(":")
        if not title and code is not None:
            title = " ".join((code.get("displayName") or "").split())
        body = "" if text is None else markup_lines(text)
        if body:
            yield Section(body, title or None)
        yield from _inside(section)
