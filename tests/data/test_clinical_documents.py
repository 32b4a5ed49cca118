"""FHIR and C-CDA: whose a text is, which forms are read, what is left out and counted, what is refused by name."""

from __future__ import annotations

import base64
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.outcome import ReadOptions, TableFormat, Tally
from lora_med.data.reading import read_records
from lora_med.data.record import Passage, Record, Section
from lora_med.errors import DataError
from tests.data.examples_clinical import CDA, COMPOSITION, NOTE, PATIENT, REPORT, attachment, bundle
from tests.data.test_sources import read, write

CASE = {**NOTE, "subject": {"reference": "Patient/p1"}, "content": [{"attachment": attachment("A note.")}]}
RTF = base64.b64encode(rb"{\rtf1 A.}").decode()


def of(tmp_path: Path, value: Any, *, name: str = "a.json", skip_bad: bool = False) -> tuple[list[Record], Tally]:
    return read("fhir", write(tmp_path, name, json.dumps(value)), skip_bad=skip_bad)


def passage(records: list[Record]) -> Passage:
    (record,) = records
    assert isinstance(record, Passage)
    return record


def test_bundles_lines_arrays_and_single_resources_give_one_text(tmp_path: Path) -> None:
    line = json.dumps(CASE)
    forms = {
        "a.json": json.dumps(bundle(CASE)),
        "b.ndjson": line + "\n",
        "c.jsonl": f"\ufeff\n{line}\r\n\n",
        "d.json": json.dumps([CASE], indent=2),
        "e.json": json.dumps(CASE, indent=2),
        "f.json": f"{json.dumps(PATIENT, indent=1)}\n{json.dumps(CASE, indent=1)}",
        "g.json": json.dumps(bundle(bundle(CASE))),
    }
    for name, content in forms.items():
        found = passage(read("fhir", write(tmp_path, name, content))[0])
        assert (found.text, found.group, found.title) == ("A note.", "Patient/p1", "Discharge summary")
        assert found.uid == f"fhir:{name}:{'1.1/' if name == 'g.json' else ''}DocumentReference/d1"
    with zipfile.ZipFile(tmp_path / "h.zip", "w") as archive:
        archive.writestr("out/a.json", forms["a.json"])
        archive.writestr("out/b.ndjson.gz", gzip.compress(forms["b.ndjson"].encode()))
    records, tally = read("fhir", tmp_path / "h.zip")
    assert [record.uid.partition(".zip/out/")[2] for record in records] == [
        "a.json:DocumentReference/d1",
        "b.ndjson:DocumentReference/d1",
    ]
    assert tally == Tally(2, 2, repeated=1)
    (tmp_path / "i.json").write_bytes(forms["a.json"].encode("utf-16"))
    assert passage(read("fhir", tmp_path / "i.json")[0]).text == "A note."


@pytest.mark.parametrize(
    "metas",
    [
        [{"versionId": "1"}, {"versionId": "2"}],
        [{"versionId": "10"}, {"versionId": "9"}],
        [{"lastUpdated": "2024-01-01T00:00:00Z"}, {"lastUpdated": "2023-06-01T00:00:00Z"}],
        [{}, {}],
    ],
)
def test_of_the_versions_of_one_resource_in_a_bulk_export_the_newest_is_read(
    metas: list[dict[str, str]], tmp_path: Path
) -> None:
    newest = 0 if metas[0].get("versionId") == "10" or "lastUpdated" in metas[0] else 1
    texts = ["An old note.", "An old note."]
    texts[newest] = "A new note."
    lines = [
        json.dumps(CASE | {"content": [{"attachment": attachment(text)}], "meta": meta})
        for text, meta in zip(texts, metas, strict=True)
    ]
    other = json.dumps(CASE | {"content": [{"attachment": attachment("Another note.")}], "id": "d2"})
    path = write(tmp_path, "a.ndjson", "\n".join([lines[0], other, lines[1]]) + "\n")
    records, tally = read("fhir", path)
    assert {record.text for record in records if isinstance(record, Passage)} == {"A new note.", "Another note."}
    assert tally == Tally(3, 2, {"superseded": 1})


@pytest.mark.parametrize(
    ("subject", "group"),
    [
        ({"reference": "Patient/p1"}, "Patient/p1"),
        ({"reference": "https://example.org/fhir/Patient/p1"}, "Patient/p1"),
        ({"reference": "Patient/p1/_history/2"}, "Patient/p1"),
        ({"reference": "urn:uuid:p1"}, "Patient/p1"),
        ({"reference": "urn:uuid:p9"}, "urn:uuid:p9"),
        ({"reference": "Patient?identifier=x|7"}, "Patient?identifier=x|7"),
        ({"reference": "#inner"}, "http://mrn|7"),
        ({"identifier": {"system": "http://mrn", "value": "7"}}, "http://mrn|7"),
    ],
)
def test_a_patient_is_one_group_however_the_subject_names_it(
    subject: dict[str, Any], group: str, tmp_path: Path
) -> None:
    inner = {"resourceType": "Patient", "id": "inner", "identifier": [{"system": "http://mrn", "value": "7"}]}
    note = {**CASE, "subject": subject, "contained": [inner]}
    assert passage(of(tmp_path, bundle(PATIENT, note))[0]).group == group


@pytest.mark.parametrize(
    "subject",
    [
        None,
        {"reference": "Group/g1"},
        {"display": "Ann Roe"},
        {"reference": "#gone"},
        {"reference": "urn:uuid:device"},
        {"type": "Device", "identifier": {"value": "7"}},
        7,
    ],
)
def test_a_text_of_no_patient_is_refused_and_counted(subject: Any, tmp_path: Path) -> None:
    value = bundle({"resourceType": "Device", "id": "device"}, {**CASE, "subject": subject})
    with pytest.raises(DataError, match="a DocumentReference whose subject is no patient") as caught:
        of(tmp_path, value)
    assert (caught.value.where or "").endswith("a.json:1, DocumentReference/d1") and "Roe" not in str(caught.value)
    assert of(tmp_path, value, skip_bad=True)[1].dropped == {"no_patient": 1, "other_type_Device": 1}


def with_content(*attachments: Any) -> dict[str, Any]:
    return {**CASE, "content": [{"attachment": one} for one in attachments]}


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (attachment("A note.\r\nMore.", "text/plain; charset=UTF-8"), "A note.\nMore."),
        ({"contentType": "text/plain;charset=iso-8859-1", "data": base64.b64encode(b"fi\xe8vre").decode()}, "fièvre"),
        ({"data": base64.b64encode("A note.".encode("utf-16")).decode()}, "A note."),
        (attachment("<html><head><title>x</title></head><p>A<br>b</p></html>", "TEXT/HTML"), "A\nb"),
        (attachment("<html><p>A note.</p></html>"), "A note."),
        (attachment('<?xml version="1.0" encoding="UTF-8"?><div><h1>A</h1>b</div>', "application/xhtml+xml"), "A\nb"),
        ({"contentType": "text/plain", "data": "QSBu\n b3Rl\nLg=="}, "A note."),
        (attachment("# A", "text/markdown"), "# A"),
    ],
)
def test_an_attachment_is_read_by_its_type_and_its_own_encoding(one: Any, text: str, tmp_path: Path) -> None:
    assert passage(of(tmp_path, with_content(one))[0]).text == text


def test_data_encoding_is_that_of_attachments_without_a_charset(tmp_path: Path) -> None:
    latin = base64.b64encode(b"fi\xe8vre").decode()
    for media in ("text/plain", "text/html"):
        path = write(tmp_path, "a.json", json.dumps(with_content({"contentType": media, "data": latin})))
        options = ReadOptions(table=TableFormat(encoding="latin-1"))
        assert passage(list(read_records(find_source("fhir"), [path], options))).text == "fièvre"
    named = with_content({"contentType": "text/plain; charset=ascii", "data": latin})
    with pytest.raises(DataError, match="the attached document is not ascii") as caught:
        of(tmp_path, named)
    assert "export the record again" in (caught.value.fix or "")
    with pytest.raises(DataError, match="unknown charset, 'klingon'"):
        of(tmp_path, with_content({"contentType": "text/plain; charset=klingon", "data": latin}))


def test_an_attached_c_cda_gives_its_sections(tmp_path: Path) -> None:
    found = passage(of(tmp_path, with_content(attachment(CDA.content, "application/hl7-cda+xml")))[0])
    assert found.sections == CDA.records[0].sections  # type: ignore[union-attr]
    assert found.group == "Patient/p1"


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ({"contentType": "application/pdf", "data": "JVBERi0="}, "it is a PDF, which is not read"),
        ({"contentType": "application/rtf", "data": RTF}, "it is RTF"),
        ({"contentType": "text/plain", "data": RTF}, "it is RTF"),
        ({"contentType": "image/png", "data": "iVBORw=="}, "it is image/png, not text"),
        ({"contentType": "Ann Roe", "data": "QQ=="}, "it is an unknown type, not text"),
        ({"contentType": "application/xml", "data": base64.b64encode(b"<a/>").decode()}, "XML that is no CDA"),
        ({"contentType": "text/plain", "data": "QSBub3RlLg="}, "not base64, or is cut off"),
        ({"contentType": "text/plain", "data": "?"}, "not base64"),
        (
            {"contentType": "text/plain", "data": base64.b64encode(b"fi\xe8vre").decode()},
            "the attached document is not UTF-8; its bytes look like Windows-1252",
        ),
        ({"contentType": "text/plain", "data": base64.b64encode(b"A\0.").decode()}, "a NUL character"),
    ],
)
def test_an_attachment_that_cannot_be_read_is_named(one: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        of(tmp_path, with_content(one))
    assert "a.json:1, DocumentReference/d1" in (caught.value.where or "") and caught.value.fix
    assert "Roe" not in str(caught.value)
    tally = of(tmp_path, with_content(one), skip_bad=True)[1]
    assert tally.kept == 0 and set(tally.dropped) <= {"unsupported_format", "bad"}


def test_of_several_forms_of_a_document_the_plainest_is_read_and_the_others_counted(tmp_path: Path) -> None:
    note = with_content(
        {"contentType": "application/pdf", "data": "JVBERi0="},
        attachment("<p>A note.</p>", "text/html"),
        attachment("A note.", "text/plain"),
        {"contentType": "text/plain", "url": "https://example.org/Binary/9"},
    )
    records, tally = of(tmp_path, note)
    assert passage(records).text == "A note."
    assert tally.parts_dropped == {
        "attachment_by_url": 1,
        "attachment_in_other_form": 1,
        "attachment_of_unsupported_format": 1,
    }


def test_a_url_is_read_within_the_bundle_and_counted_outside_it(tmp_path: Path) -> None:
    binary = {"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": attachment("A note.")["data"]}
    for url in ("Binary/b", "urn:uuid:b", "https://example.org/fhir/Binary/b"):
        assert passage(of(tmp_path, bundle(binary, with_content({"url": url})))[0]).text == "A note."
    records, tally = of(tmp_path, with_content({"url": "https://example.org/9"}))
    assert records == [] and tally.dropped == {"by_url": 1}


def test_only_current_texts_are_read_and_of_several_versions_the_newest(tmp_path: Path) -> None:
    report = {**REPORT, "id": "r9", "status": "entered-in-error"}
    old = {**CASE, "meta": {"versionId": "10"}, "content": [{"attachment": attachment("Newest.")}]}
    value = bundle(
        old,
        {**CASE, "meta": {"versionId": "9"}},
        {**CASE, "id": "d2", "docStatus": "entered-in-error"},
        {**CASE, "id": "d3", "status": "superseded"},
        report,
        {**COMPOSITION, "id": "c1", "status": "entered-in-error"},
        {**REPORT, "id": "r1", "status": "cancelled"},
    )
    records, tally = of(tmp_path, value)
    assert passage(records).text == "Newest."
    assert tally.dropped == {"cancelled": 1, "entered_in_error": 3, "superseded": 2}


def test_two_bundles_may_use_one_id_for_two_texts(tmp_path: Path) -> None:
    other = {**CASE, "subject": {"reference": "Patient/p2"}, "content": [{"attachment": attachment("Another.")}]}
    lines = f"{json.dumps(bundle(CASE))}\n{json.dumps(bundle(other))}\n"
    records, tally = read("fhir", write(tmp_path, "a.ndjson", lines))
    assert [(one.uid, one.group) for one in records] == [
        ("fhir:a.ndjson:DocumentReference/d1", "Patient/p1"),
        ("fhir:a.ndjson:2/DocumentReference/d1", "Patient/p2"),
    ]
    assert tally == Tally(2, 2)
    records, tally = of(tmp_path, [bundle(CASE), bundle(other)])
    assert [one.uid for one in records] == [f"fhir:a.json:1.{n}/DocumentReference/d1" for n in (1, 2)]


def test_a_conclusion_that_the_report_says_already_is_not_said_twice(tmp_path: Path) -> None:
    report = {**REPORT, "presentedForm": [attachment("Film.\nNormal  film.")]}
    assert passage(of(tmp_path, report)[0]).text == "Film.\nNormal  film."
    del report["presentedForm"]
    assert passage(of(tmp_path, report)[0]).sections == (Section("Normal film.", "Conclusion"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("7", "an object with a resourceType"),
        ('{"id": "a"}', "an object with a resourceType"),
        ("[[1]]", "an object with a resourceType"),
        ('{"resourceType": "Bundle"', "not JSON, or ends early"),
        (json.dumps(CASE) + "\n{", "the line is not one JSON object"),
        ("\n\n", "the file is empty"),
    ],
)
def test_what_is_no_resource_is_named(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read("fhir", write(tmp_path, "a.json", content))
    assert "a.json" in (caught.value.where or "") and caught.value.fix


def cda(change: tuple[str, str], tmp_path: Path, *, skip_bad: bool = False) -> tuple[list[Record], Tally]:
    assert change[0] in CDA.content
    return read("cda", write(tmp_path, "a.xml", CDA.content.replace(*change)), skip_bad=skip_bad)


IDENTIFIERS = '<id nullFlavor="UNK"/><id root="2.16.840.1"/><id root="2.16.840.1" extension="998991"/>'


def test_a_document_of_no_patient_is_refused_and_its_names_never_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="whose record target has no identifier") as caught:
        cda((IDENTIFIERS, '<id nullFlavor="UNK"/>'), tmp_path)
    assert "a.xml:2" in (caught.value.where or "") and "Roe" not in str(caught.value)
    assert cda((IDENTIFIERS, ""), tmp_path, skip_bad=True)[1].dropped == {"no_patient": 1}
    (found,), _ = cda((IDENTIFIERS, '<id root="2.16.840.1"/>'), tmp_path)
    assert found.group == "2.16.840.1" and "Roe" not in repr(found)
    social, own = '<id root="2.16.840.1.113883.4.1" extension="111-00-2330"/>', '<id root="1.2" extension="7"/>'
    for given, group in ((social + own, "1.2:7"), (social, "2.16.840.1.113883.4.1:111-00-2330")):
        (found,), _ = cda((IDENTIFIERS, given), tmp_path)
        assert found.group == group


START, END = CDA.content.index("<component>"), CDA.content.rindex("</ClinicalDocument>")


def other_body(text: str) -> tuple[str, str]:
    return CDA.content[START:END], f"<component><nonXMLBody>{text}</nonXMLBody></component>"


def b64(content: bytes, media: str) -> str:
    return f'<text mediaType="{media}" representation="B64">{base64.b64encode(content).decode()}</text>'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b64(b"A note.\r\nMore.", "text/plain"), "A note.\nMore."),
        (b64(b"<html><p>A note.</p></html>", "text/html"), "A note."),
        ('<text mediaType="text/plain">A note.</text>', "A note."),
        ("<text>A note.</text>", "A note."),
    ],
)
def test_a_body_that_is_not_xml_is_read_by_its_type(body: str, text: str, tmp_path: Path) -> None:
    assert passage(cda(other_body(body), tmp_path)[0]).text == text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b64(b"%PDF-1.7", "application/pdf"), "it is a PDF"),
        (b64(rb"{\rtf1}", "text/rtf"), "it is RTF"),
        (b64(b"\x89PNG", "image/png"), "it is image/png, not text"),
        ('<text mediaType="text/plain" representation="B64">?</text>', "not base64"),
    ],
)
def test_a_body_of_a_format_that_is_not_read_is_refused_by_name(body: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        cda(other_body(body), tmp_path)


def test_a_body_by_reference_and_a_body_without_text_are_counted(tmp_path: Path) -> None:
    named = other_body('<text mediaType="application/pdf"><reference value="a.pdf"/></text>')
    assert cda(named, tmp_path)[1].dropped == {"by_url": 1}
    assert cda((CDA.content[START:END], ""), tmp_path)[1].dropped == {"no_text": 1}


def test_a_prefix_no_namespace_a_zip_and_several_documents_change_nothing(tmp_path: Path) -> None:
    prefixed = CDA.content.replace("</", "\0").replace("<?", "\1").replace("<", "<h:").replace("\0", "</h:")
    prefixed = prefixed.replace("\1", "<?").replace("xmlns=", "xmlns:h=").replace("<h:sdtc:", "<sdtc:")
    bare = CDA.content.replace(' xmlns="urn:hl7-org:v3"', "")
    wanted = CDA.records[0]
    assert isinstance(wanted, Passage)
    for number, content in enumerate((prefixed.replace("</h:sdtc:", "</sdtc:"), bare)):
        found = passage(read("cda", write(tmp_path, f"{number}.xml", content))[0])
        assert (found.text, found.group, found.sections) == (wanted.text, wanted.group, wanted.sections)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one/visit.xml", CDA.content)
        archive.writestr("two/visit.xml", CDA.content.replace("998991", "7").replace("Gold", "Iron"))
        archive.writestr("STYLE/CDA.xsl", "<a/>")
    records, _ = read("cda", tmp_path / "a.zip")
    assert [(one.uid, one.group) for one in records] == [
        ("cda:a.zip/one/visit.xml", "2.16.840.1:998991"),
        ("cda:a.zip/two/visit.xml", "2.16.840.1:7"),
    ]
    body = CDA.content.split("?>\n")[1]
    both = f"<documents>{body}{body.replace('Gold', 'Iron')}</documents>"
    assert [one.uid for one in read("cda", write(tmp_path, "b.xml", both))[0]] == ["cda:b.xml:1", "cda:b.xml:2"]


def test_the_index_of_an_exchange_package_is_no_document(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "xdm.zip", "w") as archive:
        archive.writestr("INDEX.HTM", "<html/>")
        archive.writestr("IHE_XDM/SUBSET01/DOC1.XML", CDA.content)
        archive.writestr("IHE_XDM/SUBSET01/METADATA.XML", '<l:SubmitObjectsRequest xmlns:l="urn:oasis:names:tc:x"/>')
    records, tally = read("cda", tmp_path / "xdm.zip")
    assert len(records) == 1 and tally.dropped == {"package_index": 1}


def test_another_xml_is_no_clinical_document(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a ClinicalDocument"):
        read("cda", write(tmp_path, "a.xml", "<article/>"))
