"""C-CDA: documents of HL7's Clinical Document Architecture, XML or zip, one Passage each, the patient as group.

The sections of the body are Sections with their titles, the nested ones too; of tables and lists the lines are kept
(formats/documents/clinical_document.py). A body that is not XML is read where it is plain text or HTML, and refused by
name where it is RTF, PDF or a picture. The patient is the identifier of the record target: a document without one is
refused, for it could stand in two splits. Names are never read. These are patients' data: the source is credentialed.
License: that of the hospital's agreement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lora_med.data.formats.archives import FIX, Document, outcomes_of, xml_root
from lora_med.data.formats.documents.attachments import NotText, attached_sections, from_base64
from lora_med.data.formats.documents.clinical_document import (
    clinical_documents,
    patient_of,
    sections_of,
    title_of,
)
from lora_med.data.formats.documents.markup_lines import local_name
from lora_med.data.outcome import Drop, Input, Outcome, ReadOptions
from lora_med.data.record import Passage, Section
from lora_med.errors import DataError

SUFFIXES = (".xml", ".cda", ".ccda")
PACKAGE_INDEX = "SubmitObjectsRequest"  # METADATA.XML of an IHE XDM package


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The documents of the files. Drops: no_text, by_url, package_index; with an error: no_patient,
    unsupported_format, bad, damaged_file."""
    return outcomes_of(inputs, SUFFIXES, lambda document: _documents(document, options.table.encoding))


def _documents(document: Document, encoding: str | None) -> Iterator[Outcome]:
    root = xml_root(document)
    if local_name(root) == PACKAGE_INDEX:
        yield Drop("package_index")
        return
    clinicals = clinical_documents(root)
    if not clinicals:
        what = "expected a ClinicalDocument in the namespace urn:hl7-org:v3"
        raise DataError(what, where=f"{document.where}:1", fix=FIX)
    for number, clinical in enumerate(clinicals, 1):
        uid = f"cda:{document.label}" + (f":{number}" if len(clinicals) > 1 else "")
        yield _outcome(clinical, uid, f"{document.where}:{clinical.sourceline}", encoding)


def _outcome(clinical: Any, uid: str, where: str, encoding: str | None) -> Outcome:
    patient = patient_of(clinical)
    if patient is None:
        what = "a document whose record target has no identifier: nothing says which split it belongs to"
        fix = "export it with the patient's id, or set data.skip_bad=true (--skip-bad), which counts such documents"
        return Drop("no_patient", DataError(what, where=where, fix=fix))
    body = clinical.find("component/nonXMLBody/text")
    try:
        sections = sections_of(clinical) if body is None else _other_body(body, where, encoding)
    except NotText as error:
        return Drop("unsupported_format", error.form.error(where))
    except DataError as error:
        return Drop("bad", error)
    if not sections:
        by_url = body is not None and body.find("reference") is not None
        return Drop("by_url" if by_url else "no_text")
    text = "\n\n".join(f"{section.label}\n{section.text}" if section.label else section.text for section in sections)
    return Passage(uid, patient, "cda", text, title_of(clinical), tuple(sections))


def _other_body(body: Any, where: str, encoding: str | None) -> list[Section]:
    """The text of a body that is not XML: in base64 or as it is, of the media type that it names."""
    text = body.text or ""
    if not text.strip():
        return []
    if (body.get("representation") or "TXT").upper() == "B64":
        return attached_sections(from_base64(text, where), body.get("mediaType") or "", where, encoding)
    return attached_sections(text.encode("utf-8"), body.get("mediaType") or "text/plain", where)
