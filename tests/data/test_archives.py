"""Archives of documents, and what the sources that read documents promise beyond the battery."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import bioc
import pytest
from bioc import biocjson, biocxml

from lora_med.data.formats.citations import AUTHOR_END, AUTHOR_START, NUMBER, without_citations
from lora_med.data.formats.placeholders import tagged_mimic3, tagged_mimic4
from lora_med.data.record import Annotated, Passage
from lora_med.errors import DataError
from tests.data.examples_texts import PMC, STUDIES, STUDY
from tests.data.real_files import REAL, needs_real
from tests.data.test_sources import read, write


def tar(path: Path, members: dict[str, str], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
    return path


def test_articles_are_read_out_of_a_tar(tmp_path: Path) -> None:
    other = PMC.content.replace("PMC7", "PMC8").replace("Short.", "Long.")
    path = tar(tmp_path / "oa.tar.gz", {"a/PMC7.xml": PMC.content, "a/list.txt": "x", "b/PMC8.nxml": other})
    assert [record.uid for record in read("pmc", path)[0]] == ["pmc:PMC7", "pmc:PMC8"]


@pytest.mark.parametrize("keep", [200, 700])
def test_a_torn_tar_is_named_after_the_articles_before_the_tear(keep: int, tmp_path: Path) -> None:
    path = tar(tmp_path / "oa.tar", {"a.nxml": PMC.content, "b.nxml": PMC.content.replace("PMC7", "PMC8")}, "w")
    path.write_bytes(path.read_bytes()[: 512 + 2048 + keep])
    with pytest.raises(DataError) as caught:
        read("pmc", path)
    assert "oa.tar" in (caught.value.where or "")


def test_a_bad_member_of_a_zip_does_not_affect_the_others(tmp_path: Path) -> None:
    path = tmp_path / "studies.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("NCT00000009.json", "{")
        archive.writestr("NCT00000001.json", json.dumps(STUDY))
        archive.writestr("readme.txt", "x")
    records, tally = read("clinicaltrials", path, skip_bad=True)
    assert [record.uid for record in records] == ["ctgov:NCT00000001"]
    assert tally.dropped == {"damaged_file": 1}
    with pytest.raises(DataError, match="not JSON") as caught:
        read("clinicaltrials", path)
    assert "member NCT00000009.json" in (caught.value.where or "")


def test_a_torn_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "studies.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("NCT00000001.json", json.dumps(STUDY))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="ends early or is corrupt"):
        read("clinicaltrials", path)


def test_xml_never_reaches_outside_and_expands_nothing(tmp_path: Path) -> None:
    secret = write(tmp_path, "secret.txt", "SECRET")
    start = f'<!DOCTYPE clinical_study [<!ENTITY a SYSTEM "{secret.as_uri()}"><!ENTITY b "&a;&a;">]>'
    body = "<clinical_study><id_info><nct_id>NCT00000001</nct_id></id_info><brief_summary><textblock>&b;</textblock>"
    path = write(tmp_path, "study.xml", f"{start}{body}</brief_summary></clinical_study>")
    with pytest.raises(DataError, match="an entity that XML does not define"):
        read("clinicaltrials", path)


LEGACY = """<clinical_study><id_info><nct_id>NCT00000001</nct_id></id_info><brief_title>Iron at Night</brief_title>
<brief_summary><textblock>
      Iron [Fe] at
      5 * 2 mg.
    </textblock></brief_summary><condition>Anemia</condition><condition>Fatigue</condition>
<intervention><intervention_type>Drug</intervention_type><intervention_name>Iron</intervention_name>
<description>by
mouth</description></intervention><primary_outcome><measure>Ferritin</measure><time_frame>4 weeks</time_frame>
</primary_outcome><eligibility><criteria><textblock>
        Inclusion Criteria:

          -  Age &gt;
             18

        Exclusion Criteria:

          -  None
      </textblock></criteria><gender>Female</gender><minimum_age>18 Years</minimum_age><maximum_age>N/A</maximum_age>
</eligibility><overall_contact><last_name>Ann Roe</last_name><email>ann@example.org</email></overall_contact>
</clinical_study>"""


def test_the_legacy_format_gives_a_study_in_the_same_words(tmp_path: Path) -> None:
    assert read("clinicaltrials", write(tmp_path, "a.xml", LEGACY))[0] == list(STUDIES.records)


def test_of_a_study_in_several_files_the_fullest_is_kept(tmp_path: Path) -> None:
    thin: dict[str, Any] = {"protocolSection": {**STUDY["protocolSection"]}}
    del thin["protocolSection"]["eligibilityModule"]
    path = write(tmp_path, "a.json", json.dumps([thin, STUDY, thin]))
    records, tally = read("clinicaltrials", path)
    assert records == list(STUDIES.records)
    assert tally.dropped == {"superseded": 2}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("7", "a study, a search page or a list"),
        ('{"studies": [{}]}', "a study with an NCT number"),
        (json.dumps(STUDY).replace('"Iron  at Night"', "7"), "Title: expected a text, got int"),
        ("<study/>", "expected a clinical_study"),
    ],
)
def test_what_is_no_study_is_named(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read("clinicaltrials", write(tmp_path, "a.json", content))


def test_a_table_of_studies_is_refused_with_what_to_download(tmp_path: Path) -> None:
    path = write(tmp_path, "ct.csv", "NCT Number,Study Title,Brief Summary\nNCT00000004,T,A summary.\n")
    with pytest.raises(DataError, match="a table of studies") as caught:
        read("clinicaltrials", path)
    assert "as JSON" in (caught.value.fix or "")


@needs_real
def test_the_real_studies_hold_no_contact() -> None:
    records, tally = read("clinicaltrials", REAL / "ctgov" / "xml" / "NCT03211546.xml")
    assert tally.kept == 1
    found = (REAL / "ctgov" / "xml" / "NCT03211546.xml").read_text()
    names = [part.split("</last_name>")[0] for part in found.split("<last_name>")[1:]]
    text = records[0].text if isinstance(records[0], Passage) else ""
    assert names and not any(name in text for name in names)


def mark(text: str) -> str:
    return text.replace("#", NUMBER).replace("<", AUTHOR_START).replace(">", AUTHOR_END)


@pytest.mark.parametrize(
    ("marked", "wanted"),
    [
        ("one [#,#-#]. Two", "one. Two"),
        ("one.# Two", "one. Two"),
        ("of Roe et al. [#].", "of Roe et al."),
        ("one (<Roe 1995>; <Doe 2001>), two", "one, two"),
        ("one (reviewed in <Roe 1995>; see also <Doe 2001>) two", "one two"),
        ("<Roe (1995)> saw it", "Roe (1995) saw it"),
        ("iron#gold", "iron gold"),
        ("iron, #, gold", "iron, gold"),
        ("iron (n=5; #) and", "iron (n=5) and"),
        ("iron [#, page 5] and", "iron [page 5] and"),
        ("iron (e.g. steel)", "iron (e.g. steel)"),
        ("iron (see <Roe 1995> and Table 1)", "iron (see Roe 1995 and Table 1)"),
    ],
)
def test_citation_markers_go_and_weld_no_word(marked: str, wanted: str) -> None:
    assert without_citations(mark(marked)) == wanted


@needs_real
def test_the_real_articles_have_no_marker_left() -> None:
    for path in sorted((REAL / "pubmed_xml" / "pmc_nxml").iterdir()):
        (record,), tally = read("pmc", path)
        assert tally.dropped == {} and isinstance(record, Passage) and len(record.text) > 10_000
        assert not any(mark in record.text for mark in ("[]", "()", "[-", "[,", "( ,", " .\n", "..\n"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("<article xml", '<article article-type="retraction" xml'), "retraction_notice"),
        (("<title-group>", '<related-article related-article-type="retraction-forward"/><title-group>'), "retracted"),
        (('lang="en"', 'lang="de"'), "not_english"),
    ],
)
def test_articles_that_are_not_wanted_are_counted(change: tuple[str, str], reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.nxml", PMC.content.replace(*change))
    assert read("pmc", path)[1].dropped == {reason: 1}


def collection() -> Any:
    found = bioc.BioCCollection()
    document = bioc.BioCDocument()
    document.id = "7"
    passage = bioc.BioCPassage()
    passage.offset, passage.text = 4, "Iron and gold"
    for number, (start, text) in enumerate([(4, "Iron"), (13, "gold")]):
        annotation = bioc.BioCAnnotation()
        annotation.id, annotation.text, annotation.infons = str(number), text, {"type": "Metal"}
        annotation.add_location(bioc.BioCLocation(start, len(text)))
        passage.add_annotation(annotation)
    document.add_passage(passage)
    found.add_document(document)
    return found


@pytest.mark.parametrize(("name", "dumps"), [("a.xml", biocxml.dumps), ("a.json", biocjson.dumps)])
def test_what_the_bioc_library_writes_is_read_alike(name: str, dumps: Any, tmp_path: Path) -> None:
    (record,), _ = read("bioc", write(tmp_path, name, dumps(collection())))
    assert isinstance(record, Annotated) and record.text == "    Iron and gold"
    assert [(span.start, span.end, span.type) for span in record.spans] == [(4, 8, "Metal"), (13, 17, "Metal")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"type": "Metal"', '"kind": "Metal"'), "infon of the key type"),
        (('"id": "7"', '"id": null'), "a document with an id"),
        (('"documents"', '"papers"'), "a BioC collection with documents"),
        (('"offset": 4,\n', '"offset": "4",\n'), "with an offset"),
    ],
)
def test_a_bad_bioc_document_is_named(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    content = biocjson.dumps(collection(), indent=1)
    assert change[0] in content
    with pytest.raises(DataError, match=said):
        read("bioc", write(tmp_path, "a.json", content.replace(*change)))


def test_placeholders_become_typed_tags() -> None:
    assert tagged_mimic3("[**Known lastname 18**] [**2101-5-3**] [**Location (un) 5**] [**MD Number(1) 2**]") == (
        "[NAME] [DATE] [LOCATION] [ID]"
    )
    assert tagged_mimic3("[**Hospital6 18**] [**5-3**] [**State 1**] [**May 5**] [**x\ny**]") == (
        "[HOSPITAL] [DATE] [LOCATION] [DATE] [REDACTED]"
    )
    assert tagged_mimic4("Ms. ___ (___) ______ a_____b") == "Ms. [REDACTED] ([REDACTED]) ______ a_____b"


def test_a_workbook_is_read_as_rows(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["File", None, "CHQ", "Summary", None])
    sheet.append(["1", "x", "Who?\nMe", "Who", None])
    sheet.append([None, None, None, None, None])
    sheet.append(["2", None, "What?", "What", None])
    book.save(tmp_path / "a.xlsx")
    records, tally = read("meqsum", tmp_path / "a.xlsx")
    assert [record.uid for record in records] == ["meqsum:a.xlsx:2", "meqsum:a.xlsx:4"]
    assert tally.read == 2
    (tmp_path / "b.xlsx").write_bytes((tmp_path / "a.xlsx").read_bytes()[:900])
    with pytest.raises(DataError, match="not an Excel workbook"):
        read("meqsum", tmp_path / "b.xlsx")
