"""What is in a file decides its source, with the reason; a file of no known format is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_med.data.detection.detect_source import detect_source, detect_sources, files_in
from lora_med.data.outcome import TableFormat
from lora_med.errors import DataError, InputMissingError
from tests.data.examples import EXAMPLES

AS_FILE = TableFormat()
WITHOUT_A_MARK = {"general": "custom", "ncbi_disease": "bc5cdr", "mmlu": "custom"}  # alike but for their names


@pytest.mark.parametrize("source", EXAMPLES)
def test_the_example_of_each_source_is_detected(source: str, tmp_path: Path) -> None:
    EXAMPLES[source].write(tmp_path)
    detected = detect_sources(files_in([str(tmp_path)]), AS_FILE)
    assert {item.source for item in detected.values()} == {WITHOUT_A_MARK.get(source, source)}


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        (
            "a.xml",
            '<?xml version="1.0"?>\n<!DOCTYPE x [<!ENTITY a "b">]>\n<PubmedArticleSet></PubmedArticleSet>',
            "pubmed",
        ),
        ("a.xml", '<!-- a comment --><oai:OAI-PMH xmlns:oai="x"></oai:OAI-PMH>', "pmc"),
        ("a.xml", '<ClinicalDocument xmlns="urn:hl7-org:v3"></ClinicalDocument>', "cda"),
        ("a.xml", "<root><TEXT><![CDATA[A note.]]></TEXT><TAGS><NAME/></TAGS></root>", "n2c2"),
        ("a.nbib", "\nPMID- 31828225\nTI  - A title\n", "pubmed"),
        ("a.txt", "Fever\tB-Disease\nand\tO\nchills\tB-Disease\n", "conll"),
        ("a.conllu", "# sent_id = 1\n1\tFever\t_\t_\t_\t_\t0\t_\t_\tNER=B-Disease\n", "conll"),
        ("a.txt", "A note.\nIt has two lines.\n", "plain_text"),
        ("a.csv", "Dialogue,Note,Encounter\na,b,c\n", "custom"),
        ("a.jsonl", json.dumps({"resourceType": "DocumentReference"}) + "\n", "fhir"),
    ],
)
def test_the_mark_of_a_format_decides(name: str, content: str, source: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    detected = detect_source(path, AS_FILE)
    assert detected.source == source
    assert detected.reason


def test_text_beside_its_annotations_is_brat(tmp_path: Path) -> None:
    for name, content in (("a.txt", "Fever."), ("a.ann", "T1\tDisease 0 5\tFever\n"), ("b.txt", "A note.")):
        (tmp_path / name).write_text(content)
    detected = detect_sources(files_in([str(tmp_path)]), AS_FILE)
    assert {path.name: item.source for path, item in detected.items()} == {
        "a.ann": "brat",
        "a.txt": "brat",
        "b.txt": "plain_text",
    }


def test_xml_that_nothing_reads_is_refused_with_its_root(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<invoice><total>1</total></invoice>")
    with pytest.raises(DataError, match="<invoice>"):
        detect_source(tmp_path / "a.xml", AS_FILE)


def test_an_empty_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="holds no file"):
        files_in([str(tmp_path)])
    with pytest.raises(InputMissingError, match=r"nowhere\.csv"):
        files_in([str(tmp_path / "nowhere.csv")])
