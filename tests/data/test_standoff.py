"""Texts with annotations in a second file: brat's pairs, and the three forms of n2c2 and i2b2."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lora_med.cli.main import run
from lora_med.data.catalog import find_source
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import ReadOptions, TableFormat, Tally
from lora_med.data.reading import read_records
from lora_med.data.record import Annotated, Record
from lora_med.errors import DataError
from tests.data.damage import DAMAGES, damaged
from tests.data.examples_annotated import BRAT, N2C2, NOTE
from tests.data.test_fuzz import MUTATIONS, PIECES, SECONDS, limited


def read(source: str, *paths: Path, skip_bad: bool = False) -> tuple[list[Record], Tally]:
    found = find_source(source)
    inputs = find_inputs(found, [str(path) for path in paths])
    reading = read_records(found, inputs, ReadOptions(), skip_bad=skip_bad, may_be_empty=True)
    return list(reading), reading.tally


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8"))
    return path


def entities(record: Record) -> list[tuple[int, int, str, str]]:
    assert isinstance(record, Annotated)
    return [(span.start, span.end, span.type, span.text) for span in record.spans]


def test_a_folder_is_read_pair_by_pair_and_a_pair_once(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "d1.txt", f"Fever {folder}.")
        write(tmp_path / folder / "d1.ann", "T1\tDisease 0 5\tFever\n")
    write(tmp_path / "annotation.conf", "[entities]\nDisease\n")
    records, tally = read("brat", tmp_path)
    assert [(record.uid, record.group) for record in records] == [
        ("brat:a/d1", "brat:a/d1"),
        ("brat:b/d1", "brat:b/d1"),
    ]
    assert tally.read == 2


def test_an_ann_alone_names_its_text_and_a_text_alone_is_not_a_text_without_mentions(tmp_path: Path) -> None:
    text, lines = write(tmp_path / "d1.txt", NOTE), write(tmp_path / "d1.ann", BRAT.companions["note.ann"])
    assert read("brat", lines)[0] == read("brat", text)[0] == read("brat", tmp_path)[0]
    lines.unlink()
    with pytest.raises(DataError, match=r"no d1\.ann: a text without annotations is not a text without mentions"):
        read("brat", tmp_path)
    assert read("brat", tmp_path, skip_bad=True)[1].dropped == {"not_annotated": 1}
    write(lines, BRAT.companions["note.ann"])
    text.unlink()
    with pytest.raises(DataError, match=r"no d1\.txt"):
        read("brat", tmp_path)


def test_an_empty_ann_says_that_a_text_has_no_mentions(tmp_path: Path) -> None:
    write(tmp_path / "d1.txt", NOTE)
    write(tmp_path / "d1.ann", "")
    (record,), tally = read("brat", tmp_path)
    assert entities(record) == [] and tally.dropped == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Fever", "that begins with T, R, E, A, M, N, # or"),
        ("T1 Disease 0 5 Fever", "an identifier, a tab, a type"),
        ("T1\tDisease\tFever", "an identifier, a tab, a type"),
        ("T1\tDisease 0 five\tFever", "as numbers of characters"),
        ("T1\tDisease 0 5;\tFever", "as numbers of characters"),
    ],
)
def test_a_bad_line_of_an_ann_is_named_and_costs_its_document_only(line: str, said: str, tmp_path: Path) -> None:
    for name, lines in (("a", f"\n{line}\n"), ("b", "T1\tDisease 0 5\tFever\n")):
        write(tmp_path / f"{name}.txt", f"Fever {name}.")
        write(tmp_path / f"{name}.ann", lines)
    with pytest.raises(DataError, match=said) as caught:
        read("brat", tmp_path)
    assert (caught.value.where or "").endswith("a.ann:2")
    records, tally = read("brat", tmp_path, skip_bad=True)
    assert [record.uid for record in records] == ["brat:b"] and tally.dropped == {"bad": 1}


def test_windows_line_ends_and_a_byte_order_mark_shift_nothing(tmp_path: Path) -> None:
    for mark in ("", "\ufeff"):
        write(tmp_path / "d1.txt", f"{mark}Fever.\r\nRash.\r\n")
        for shift in (0, len(mark)):
            lines = f"{mark}T1\tDisease {shift} {shift + 5}\tFever\r\nT2\tDisease {shift + 8} {shift + 12}\tRash\r\n"
            write(tmp_path / "d1.ann", lines)
            (record,), _ = read("brat", tmp_path)
            assert isinstance(record, Annotated) and record.text == "Fever.\nRash.\n"
            assert entities(record) == [(0, 5, "Disease", "Fever"), (7, 11, "Disease", "Rash")]


def test_a_named_encoding_is_that_of_both_files_and_another_is_named(tmp_path: Path) -> None:
    (tmp_path / "d1.TXT").write_bytes("Fièvre.".encode("latin-1"))
    (tmp_path / "d1.ann").write_bytes("T1\tDisease 0 6\tFièvre\n".encode("latin-1"))
    found = find_source("brat")
    inputs = find_inputs(found, [str(tmp_path)])
    (record,) = read_records(found, inputs, ReadOptions(table=TableFormat(encoding="latin-1")))
    assert entities(record) == [(0, 6, "Disease", "Fièvre")]
    with pytest.raises(DataError, match="the file is not UTF-8") as caught:
        read("brat", tmp_path)
    assert "--encoding" in (caught.value.fix or "")


def test_an_ann_of_another_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "d1.txt", "Another note.")
    write(tmp_path / "d1.ann", "T1\tDisease 0 5\tFever\nT2\tDisease 6 10\tRash\n")
    with pytest.raises(DataError, match=r"none of the 2 mentions of d1\.ann fits"):
        read("brat", tmp_path)


CONCEPTS = (
    'c="fever" 1:1 1:1||t="problem"\nc="a high fever" 1:0 2:0||t="problem"\nc=""aspirin"" 2:1 2:1||t="treatment"\n'
)


@pytest.mark.parametrize(
    ("source", "text", "name", "lines"),
    [
        ("brat", NOTE, "note.ann", BRAT.companions["note.ann"]),
        ("n2c2", NOTE, "note.ann", BRAT.companions["note.ann"]),
        ("n2c2", 'Some Fever\nafter "aspirin" .\n', "note.con", CONCEPTS),
    ],
)
def test_damaged_annotations_give_sound_records_or_a_named_error(
    source: str, text: str, name: str, lines: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "note.txt", text)
    draw = random.Random(f"fuzz {source} {name}")
    errors = 0
    for _ in range(MUTATIONS):
        (tmp_path / name).write_bytes(damaged(lines.encode(), draw, PIECES, most=4, kinds=[draw.choice(DAMAGES)]))
        try:
            with limited(SECONDS):
                records, _ = read(source, path)
        except DataError as error:
            assert "note." in (error.where or "") and error.fix
            errors += 1
            continue
        for record in records:
            assert isinstance(record, Annotated)
            assert all(record.text[span.start : span.end] == span.text and span.type for span in record.spans)
    assert 20 < errors < MUTATIONS


def test_the_command_names_the_missing_half(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "d1.txt", NOTE)
    assert run(["data", "read", "brat", str(tmp_path), "--out", str(tmp_path / "out.jsonl")]) == 65
    assert "no d1.ann" in capfd.readouterr().err


TEMPORAL = (
    "<ClinicalNarrativeTemporalAnnotation><TEXT><![CDATA[Admission Date :\n2014-01-02\nFever .\n]]></TEXT><TAGS>"
    '<EVENT id="E0" start="1" end="10" text="Admission" modality="FACTUAL" polarity="POS" type="OCCURRENCE" />'
    '<TIMEX3 id="T0" start="18" end="28" text="2014-01-02" type="DATE" val="2014-01-02" mod="NA" />'
    '<EVENT id="E1" start="29" end="34" text="Fever" modality="FACTUAL" polarity="POS" type="PROBLEM" />'
    '<TLINK id="TL0" fromID="E1" toID="T0" type="OVERLAP" /></TAGS></ClinicalNarrativeTemporalAnnotation>'
)


def test_offsets_of_i2b2_2012_count_from_one_and_its_links_are_counted(tmp_path: Path) -> None:
    (record,), tally = read("n2c2", write(tmp_path / "1.xml", TEMPORAL))
    assert entities(record) == [
        (0, 9, "OCCURRENCE", "Admission"),
        (17, 27, "DATE", "2014-01-02"),
        (28, 33, "PROBLEM", "Fever"),
    ]
    assert tally.parts_dropped == {"no_offsets": 1}


def test_records_of_a_patient_are_one_group_and_other_files_their_own(tmp_path: Path) -> None:
    for number, name in enumerate(("110-01", "110-02", "111-01", "0001_gs")):
        N2C2.write(tmp_path, N2C2.content.replace("Seen", f"Se{number}n").encode(), f"{name}.xml")
    records, _ = read("n2c2", tmp_path)
    assert {record.uid: record.group for record in records} == {
        "n2c2:0001_gs": "n2c2:0001_gs",
        "n2c2:110-01": "n2c2:110",
        "n2c2:110-02": "n2c2:110",
        "n2c2:111-01": "n2c2:111",
    }


def test_nested_tags_are_read_and_tags_of_the_note_as_a_whole_are_counted(tmp_path: Path) -> None:
    content = (
        '<root><TEXT>On aspirin.</TEXT><TAGS><MEDICATION id="D0" time="before DCT" type1="aspirin">'
        '<MEDICATION id="M0" start="3" end="10" text="aspirin" time="before DCT" /></MEDICATION></TAGS></root>'
    )
    (record,), tally = read("n2c2", write(tmp_path / "1.xml", content))
    assert entities(record) == [(3, 10, "MEDICATION", "aspirin")]
    assert tally.parts_dropped == {"no_offsets": 1}


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ('<ABDOMINAL met="not met" />', "none of the 1 tags has a start and an end"),
        ('<NAME start="0" end="two" text="On" />', "as numbers of characters"),
        ('<NAME start="0" end="2" text="No"/><NAME start="1" end="2" text="x"/>', "none of the 2 tags fits"),
    ],
)
def test_a_note_whose_tags_are_no_spans_is_refused(tags: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "1.xml", f"<root><TEXT>On aspirin.</TEXT><TAGS>{tags}</TAGS></root>")
    with pytest.raises(DataError, match=said):
        read("n2c2", path)
    path = write(tmp_path / "2.xml", "<root><TEXT>On aspirin.</TEXT></root>")
    with pytest.raises(DataError, match="a root with TEXT and TAGS"):
        read("n2c2", path)


def test_concepts_of_2010_are_found_by_line_and_word_in_the_folder_beside(tmp_path: Path) -> None:
    write(tmp_path / "txt" / "record-13.txt", 'Some Fever\nafter "aspirin" .\n')
    write(tmp_path / "concept" / "record-13.con", CONCEPTS)
    (record,), tally = read("n2c2", tmp_path)
    assert record.uid == "n2c2:record-13" and record.group == "n2c2:record-13"
    assert entities(record) == [(5, 10, "problem", "Fever"), (17, 26, "treatment", '"aspirin"')]
    assert tally.parts_dropped == {"text_differs": 1}


def test_n2c2_reads_pairs_of_brat_and_refuses_a_text_without_annotations(tmp_path: Path) -> None:
    write(tmp_path / "100035.txt", "On aspirin.")
    write(tmp_path / "100035.ann", "T1\tDrug 3 10\taspirin\n")
    (record,), _ = read("n2c2", tmp_path)
    assert (record.uid, record.source) == ("n2c2:100035", "n2c2")
    assert entities(record) == [(3, 10, "Drug", "aspirin")]
    (tmp_path / "100035.ann").unlink()
    with pytest.raises(DataError, match=r"no 100035\.ann"):
        read("n2c2", tmp_path)


@pytest.mark.parametrize("ending", [".txt", ".ann"])
def test_a_nul_character_in_either_file_is_refused_by_name(ending: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Fever.\n")
    (tmp_path / "a.ann").write_text("T1\tDisease 0 5\tFever\n")
    path = tmp_path / f"a{ending}"
    path.write_text(path.read_text() + "\0")
    with pytest.raises(DataError, match="line 2 holds a NUL character"):
        list(read_records(find_source("brat"), [tmp_path / "a.ann", tmp_path / "a.txt"], ReadOptions()))
