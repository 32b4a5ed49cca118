"""Examples whose records are documents of patients' records: plain texts, FHIR, C-CDA."""

from __future__ import annotations

import base64
import json
from typing import Any

from lora_med.data.record import Passage, Section
from tests.data.example import Example


def attachment(text: str, media: str = "text/plain") -> dict[str, str]:
    """A FHIR attachment that holds `text`."""
    return {"contentType": media, "data": base64.b64encode(text.encode()).decode()}


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    """A FHIR bundle of the resources, each with a full URL from its id."""
    entries = [{"fullUrl": f"urn:uuid:{one.get('id')}", "resource": one} for one in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


NOTE: dict[str, Any] = {
    "resourceType": "DocumentReference",
    "id": "d1",
    "status": "current",
    "type": {"coding": [{"system": "http://loinc.org", "code": "18842-5", "display": "Discharge  summary"}]},
    "subject": {"reference": "urn:uuid:p1"},
    "content": [{"attachment": attachment("Iron was given.\r\nShe is well.\n")}],
}
REPORT: dict[str, Any] = {
    "resourceType": "DiagnosticReport",
    "id": "r1",
    "status": "final",
    "code": {"text": "Chest film"},
    "subject": {"reference": "https://example.org/fhir/Patient/p2/_history/3"},
    "presentedForm": [attachment("<p>Lungs are <b>clear</b>.</p><ul><li>No gas</li></ul>", "text/html; charset=utf-8")],
    "conclusion": "Normal film.",
}
COMPOSITION: dict[str, Any] = {
    "resourceType": "Composition",
    "status": "final",
    "title": "Visit",
    "type": {"text": "Note"},
    "subject": {"reference": "Patient/p1"},
    "section": [
        {
            "title": "History:",
            "text": {"status": "generated", "div": "<div xmlns='http://www.w3.org/1999/xhtml'>Iron&nbsp;low.</div>"},
            "section": [
                {
                    "code": {"text": "Drugs"},
                    "text": {
                        "div": "<div><table><tr><th>Drug</th><th>Dose</th></tr><tr><td>Iron</td><td>5 mg</td></tr>"
                        "</table></div>"
                    },
                }
            ],
        },
        {"title": "Empty"},
    ],
}
PATIENT = {"resourceType": "Patient", "id": "p1", "name": [{"family": "Roe"}]}
FHIR = Example(
    "export.json",
    json.dumps(bundle(PATIENT, NOTE, {**NOTE, "id": "d2", "status": "entered-in-error"}, REPORT, COMPOSITION)),
    (
        Passage(
            "fhir:export.json:DocumentReference/d1",
            "Patient/p1",
            "fhir",
            "Iron was given.\nShe is well.",
            "Discharge summary",
            (Section("Iron was given.\nShe is well."),),
        ),
        Passage(
            "fhir:export.json:DiagnosticReport/r1",
            "Patient/p2",
            "fhir",
            "Lungs are clear.\n- No gas\n\nConclusion\nNormal film.",
            "Chest film",
            (Section("Lungs are clear.\n- No gas"), Section("Normal film.", "Conclusion")),
        ),
        Passage(
            "fhir:export.json:1.5",
            "Patient/p1",
            "fhir",
            "History\nIron low.\n\nDrugs\nDrug | Dose\nIron | 5 mg",
            "Visit",
            (Section("Iron low.", "History"), Section("Drug | Dose\nIron | 5 mg", "Drugs")),
        ),
    ),
    {"entered_in_error": 1, "other_type_Patient": 1},
)

CDA = Example(
    "visit.xml",
    """<?xml version="1.0"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:sdtc="urn:hl7-org:sdtc"><id root="1.2"/>
<code code="34133-9" displayName="Summary of episode note"/><title>Visit
 summary</title>
<recordTarget><patientRole><id nullFlavor="UNK"/><id root="2.16.840.1"/><id root="2.16.840.1" extension="998991"/>
<patient><name><given>Ann</given><family>Roe</family></name><sdtc:raceCode code="1"/></patient></patientRole>
</recordTarget><component><structuredBody>
<component><section><title>Allergies:</title><text><list><item>Gold</item><item>Silver<br/>since <sub>2</sub>001</item>
</list></text><entry><act><text>Not this.</text></act></entry></section></component>
<component><section><code displayName="Hospital course"/><text><paragraph>Iron <content styleCode="Bold">rose</content
>.</paragraph><content revised="delete">Wrong.</content><table><caption>Laboratory</caption><thead><tr><th>Test</th>
<th>Value</th></tr></thead><tbody><tr><td><paragraph>Iron</paragraph></td><td>5 &lt; 10</td></tr></tbody></table></text>
<component><section><title>Plan</title><text>Rest.
 Walk.</text></section></component></section></component>
<component><section><title>Plan of care</title><text/></section></component>
</structuredBody></component></ClinicalDocument>
""",
    (
        Passage(
            "cda:visit.xml",
            "2.16.840.1:998991",
            "cda",
            "Allergies\n- Gold\n- Silver\nsince 2001\n\nHospital course\nIron rose.\nLaboratory\nTest | Value\n"
            "Iron | 5 < 10\n\nPlan\nRest.\nWalk.",
            "Visit summary",
            (
                Section("- Gold\n- Silver\nsince 2001", "Allergies"),
                Section("Iron rose.\nLaboratory\nTest | Value\nIron | 5 < 10", "Hospital course"),
                Section("Rest.\nWalk.", "Plan"),
            ),
        ),
    ),
    {},
)

PLAIN = Example(
    "note.txt",
    "\n  HISTORY: she has Ménière's disease.\r\n\r\nPlan: rest.\r",
    (
        Passage(
            "plain_text:note.txt",
            "note.txt",
            "plain_text",
            "  HISTORY: she has Ménière's disease.\n\nPlan: rest.",
        ),
    ),
    {},
)
