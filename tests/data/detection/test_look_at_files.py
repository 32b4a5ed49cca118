"""What `look` finds in files before a run reads them: in every file, each finding with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_med.data.detection.look_at_files import look
from lora_med.data.outcome import TableFormat
from lora_med.errors import DataError

AS_SHOWN = TableFormat()


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_a_patient_column_of_any_file_is_found(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", "prompt,completion\nWhy?,So.\n")
    second = write(tmp_path / "b.csv", "prompt,completion,PatientNo\nWhat?,That.,7\n")
    seen = look([first, second], AS_SHOWN)
    assert seen.columns == ("prompt", "completion", "PatientNo")
    assert seen.patient_columns == {"PatientNo": "b.csv"}


def test_a_patient_inside_a_column_or_in_a_later_row_is_found(tmp_path: Path) -> None:
    rows = [{"text": "One."}, {"text": "Two.", "meta": {"patient_id": 4, "site": "A"}}]
    path = write(tmp_path / "notes.jsonl", "\n".join(map(json.dumps, rows)))
    assert look([path], AS_SHOWN).patient_columns == {"meta.patient_id": "notes.jsonl"}


def test_a_case_in_words_and_the_subject_of_an_exam_are_no_patients(tmp_path: Path) -> None:
    row = {"question": "Which drug is it?", "answer": "A", "subject": "Anatomy", "case": "A man of 60 with chest pain."}
    path = write(tmp_path / "exam.jsonl", json.dumps(row))
    assert look([path], AS_SHOWN).patient_columns == {}


@pytest.mark.parametrize(
    ("content", "value", "reason", "likely"),
    [
        (b"text\nplain\n", "utf-8", "ASCII", False),
        ("text\nMénière\n".encode(), "utf-8", "beyond ASCII are UTF-8", False),
        ("\ufefftext\nMénière\n".encode(), "utf-8", "byte order mark", False),
        ("\ufefftext\nMénière\n".encode("utf-16-le"), "utf-16-le", "byte order mark", False),
        ("text\nMaladie de Ménière, sévère, traitée\n".encode("latin-1"), "windows-1252", "not UTF-8", True),
    ],
)
def test_the_encoding_has_its_reason(content: bytes, value: str, reason: str, likely: bool, tmp_path: Path) -> None:
    ((found, count),) = look([write(tmp_path / "a.csv", content)], AS_SHOWN).encodings.items()
    assert (found.value, found.likely, count) == (value, likely, 1)
    assert reason in found.reason


def test_an_xml_declaration_and_a_stated_encoding_are_reasons(tmp_path: Path) -> None:
    xml = '<?xml version="1.0" encoding="ISO-8859-1"?><PubmedArticleSet></PubmedArticleSet>'
    (found,) = look([write(tmp_path / "a.xml", xml)], AS_SHOWN).encodings
    assert (found.value, found.reason) == ("iso-8859-1", "its XML declaration says so")
    latin = write(tmp_path / "b.csv", "text\nMénière\n".encode("latin-1"))
    (found,) = look([latin], TableFormat(encoding="latin-1")).encodings
    assert (found.value, found.likely) == ("iso8859-1", False)


def test_a_character_that_the_sample_cuts_is_still_utf_8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", ("x" * ((1 << 20) - 1) + "é and more of it").encode())
    (found,) = look([path], AS_SHOWN).encodings
    assert (found.value, found.likely) == ("utf-8", False)


def test_the_delimiter_is_the_one_that_the_header_shows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text;label\nA, or B;x\nC, or D;y\n")
    ((found, count),) = look([path], AS_SHOWN).delimiters.items()
    assert (found.value, count) == ("a semicolon", 1)


def test_where_no_column_says_what_the_rows_are_the_longest_texts_are_named(tmp_path: Path) -> None:
    rows = "ID,keywords,transcription\n1,cough,The patient coughs at night for a week now.\n"
    seen = look([write(tmp_path / "a.csv", rows)], AS_SHOWN)
    assert seen.needs_columns and seen.longest_texts == "transcription"


def test_a_text_in_place_of_a_name_is_no_patient_column(tmp_path: Path) -> None:
    note = "The patient Jane Roe was seen on the ward with a fever"
    assert look([write(tmp_path / "a.csv", f"{note},other\n5,6\n")], AS_SHOWN).patient_columns == {}


@pytest.mark.parametrize(
    ("name", "content", "named", "fix"),
    [
        ("a.tsv", "#FORMAT=WebAnno TSV 3.3\n\n#Text=Fever\n1-1\t0-5\tFever\tSymptom\t\n", "WebAnno TSV", "CoNLL 2002"),
        ("a.hl7", "MSH|^~\\&|LAB|H|WARD|H|2024||ORU^R01|1|P|2.5\rOBX|1|TX|NOTE||Fever\r", "HL7 version 2", ".csv"),
        ("a.txt", "ID|TEXT\n1|Fever\n2|Cough\n3|Rash\n", "a vertical bar divides each line into 2 cells", ".csv"),
        ("a.dat", "ID\tTEXT\n1\tFever\n2\tCough\n", "a tab divides", ".csv"),
    ],
)
def test_texts_of_a_format_that_nothing_reads_are_refused_by_name(
    name: str, content: str, named: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=named) as raised:
        look([write(tmp_path / name, content)], AS_SHOWN)
    assert fix in str(raised.value.fix)


def test_running_text_with_signs_of_a_table_is_still_text(tmp_path: Path) -> None:
    note = "Seen today; well.\nNo fever; no cough; eats.\nHome.\nBack in a week; sooner if worse.\n"
    assert look([write(tmp_path / "a.txt", note)], AS_SHOWN).source.name == "plain_text"
