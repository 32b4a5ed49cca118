"""CSV as spreadsheets and hospitals write it: delimiters, line ends, what is above the header, encodings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.formats.tables import TableRow, rows
from lora_med.data.outcome import Drop, ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.record import Passage
from lora_med.errors import SettingsError
from tests.data.containers.reading_rows import outcomes, refusal, values

AX, BY = {"text": "A note", "label": "x"}, {"text": "B note", "label": "y"}
READ: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "commas": ("text,label\nA note,x\nB note,y\n", [AX, BY]),
    "semicolons": ('text;label\n"A note; with more";x\nB note;y\n', [{"text": "A note; with more", "label": "x"}, BY]),
    "tabs": ("text\tlabel\nA note\tx\nB note\ty\n", [AX, BY]),
    "bars": ("text|label\nA note|x\nB note|y\n", [AX, BY]),
    "commas in quotes of the header": ('"text";"label, or class"\nA;x\n', [{"text": "A", "label, or class": "x"}]),
    "a comma in a name, semicolons between": (
        "id;note, free text;dose\n1;A;3,5\n2;B;4,5\n",
        [{"id": "1", "note, free text": "A", "dose": "3,5"}, {"id": "2", "note, free text": "B", "dose": "4,5"}],
    ),
    "sep= of Excel": ("sep=;\ntext;label\nA note;x\nB note;y\n", [AX, BY]),
    "sep= in quotes": ('"sep=|"\r\ntext|label\r\nA note|x\r\nB note|y\r\n', [AX, BY]),
    "sep= of one column": ("sep=;\ntext\nA, B\n", [{"text": "A, B"}]),
    "CR": ("text,label\rA note,x\rB note,y\r", [AX, BY]),
    "CR LF": ("text,label\r\nA note,x\r\nB note,y\r\n", [AX, BY]),
    "mixed line ends": ("text,label\r\nA note,x\rB note,y\n", [AX, BY]),
    "CR CR LF": ("text,label\r\r\nA note,x\r\r\nB note,y\r\r\n", [AX, BY]),
    "a comment": ("# exported 2024\ntext,label\nA note,x\nB note,y\n", [AX, BY]),
    "comments and empty lines": ("# exported\n# by hand, on, Monday\n\ntext,label\nA note,x\nB note,y\n", [AX, BY]),
    "a comment above one column": ("# exported in 2024\ntext\nA note\n", [{"text": "A note"}]),
    "empty lines above and below": ("\n,,\ntext,label\nA note,x\n\n,\nB note,y\n,\n", [AX, BY]),
    "empty cells at the end": ("text,label,,\nA note,x,,\nB note,y\n", [AX, BY]),
    "a column without a name": (",text\n0,A note\n", [{"column 1 (no name)": "0", "text": "A note"}]),
    "one column": ("text\nA note\n", [{"text": "A note"}]),
    "blanks in the header": ('"text ", label\nA note,x\n', [AX]),
    "a quote inside a cell": ('text,label\n5" scar,x\n', [{"text": '5" scar', "label": "x"}]),
    "a short empty cell": ("text,label\nA note,\n", [{"text": "A note", "label": ""}]),
}


@pytest.mark.parametrize("kind", READ)
def test_the_header_shows_how_the_cells_are_separated(kind: str, tmp_path: Path) -> None:
    content, expected = READ[kind]
    assert values(tmp_path / "a.csv", content) == expected
    assert values(tmp_path / "a.tsv", content) == expected
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert values(tmp_path / "a.csv", content.encode(encoding)) == expected


def test_one_column_whose_name_has_a_semicolon_is_read_where_the_delimiter_is_stated(tmp_path: Path) -> None:
    content = "Note; free text\nA\nB\n"
    assert "got 1" in refusal(tmp_path / "a.csv", content)
    assert values(tmp_path / "a.csv", content, delimiter=",") == [{"Note; free text": "A"}, {"Note; free text": "B"}]


def test_rows_are_named_by_the_line_on_which_they_begin(tmp_path: Path) -> None:
    content = '# a comment\n\ntext,label\n"A\nnote",x\nB note,y\n'
    assert [row.number for row in outcomes(tmp_path / "a.csv", content) if isinstance(row, TableRow)] == [4, 6]


@pytest.mark.parametrize(("stated", "sign"), [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("semicolon", ";"), ("~", "~")])
def test_a_delimiter_is_stated_by_itself_or_by_name(stated: str, sign: str, tmp_path: Path) -> None:
    content = f"text{sign}label\nA, B{sign}x\n"
    assert values(tmp_path / "a.csv", content, delimiter=stated) == [{"text": "A, B", "label": "x"}]


REFUSED = {
    "NUL": ("text,label\nA\0note,x\n", "column 'text' holds a NUL character", {}),
    "NUL at the end": ("text,label\nA,x\n\0\0\0", "NUL", {}),
    "a # that may be the header": ("#id,text\n1,A\n", "header or comment", {}),
    "a comment with as many cells": ("# exported, Monday\ntext,label\nA,x\n", "begins with #", {}),
    "two delimiters": ("a,b;c\n1,2;3\n", "a comma or a semicolon|a semicolon or a comma", {}),
    "a delimiter that is not there": ("text,label\nA,x\n", "text, label", {"delimiter": ";"}),
    "no delimiter": ("text,label\nA,x\n", "cannot be 'ab'", {"delimiter": "ab"}),
    "a quote as delimiter": ("text,label\nA,x\n", "cannot be", {"delimiter": '"'}),
    "cells missing": ("text,label\nA note\n", r"expected 2 cells \(text, label\), got 1", {}),
    "cells too many": ("text\nA, B\n", r"expected 1 cell \(text\), got 2", {}),
    "a title above": ("Export of May\ntext,label\nA,x\n", r"expected 1 cell \(Export of May\), got 2", {}),
    "a name twice": ("text,label,text\nA,x,B\n", "the same name: text", {}),
    "a backslash before a quote": ('text,label\n"He said \\"ow\\" twice",x\n', "without a backslash", {}),
    "a quote without end in the header": ('"text,label\nA,x\n', "header", {}),
    "another format": ("PK\x03\x04 and so on", "a zip archive or an Excel workbook", {}),
    "a sheet": ("text,label\nA,x\n", "data.sheet is for Excel", {"sheet": "One"}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_fault_of_the_layout_is_named_without_advice_to_skip(kind: str, tmp_path: Path) -> None:
    import re

    content, named, table = REFUSED[kind]
    said = refusal(tmp_path / "a.csv", content, **table)
    assert re.search(named, said), said
    assert kind.startswith("NUL") or "skip" not in said


def test_a_row_with_other_cells_after_good_ones_may_be_skipped(tmp_path: Path) -> None:
    first, second, third = outcomes(tmp_path / "a.csv", "text,label\nA,x\nB\nC,z\n")
    assert isinstance(first, TableRow) and isinstance(third, TableRow)
    assert isinstance(second, Drop) and "--skip-bad" in str(second.error)


def test_a_file_without_a_header_may_repeat_the_names(tmp_path: Path) -> None:
    path, names = tmp_path / "a.csv", ("question", "A", "answer")
    for head in ("", "question,A,answer\n", "Question,A,Answer\r\n"):
        path.write_text(head + "Which?,One,A\n")
        (row,) = rows(path, header=names)
        assert isinstance(row, TableRow) and row.values == {"question": "Which?", "A": "One", "answer": "A"}
    path.write_text("Which; then?;One;A\n".replace("; then", ", then"))
    (row,) = rows(path, header=names)
    assert isinstance(row, TableRow) and row.values["question"] == "Which, then?"


def test_texts_end_their_lines_in_one_form(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,label\r\n"Line one\r\nLine two, ""quoted""\r\n\r\nLine four\rfive\r\r\nsix",x\r\nB,y\r\n')
    options = ReadOptions(columns={"text": "text"}, ignore_columns=("label",))
    first, second = read_records(find_source("custom"), [path], options)
    assert isinstance(first, Passage) and first.text == 'Line one\nLine two, "quoted"\n\nLine four\nfive\nsix'
    assert isinstance(second, Passage) and second.text == "B"


def test_a_setting_that_would_change_nothing_is_refused_by_name(tmp_path: Path) -> None:
    from lora_med.data.outcome import TableFormat

    for source in ("pmc", "medquad", "clinicaltrials", "pubmed", "bioc"):
        with pytest.raises(SettingsError, match="state their own encoding"):
            read_records(find_source(source), [tmp_path / "a.xml"], ReadOptions(table=TableFormat("latin-1")))
    for source in ("conll", "bc5cdr", "brat", "n2c2", "plain_text", "fhir", "cda"):
        for table in (TableFormat(delimiter=";"), TableFormat(sheet="A")):
            with pytest.raises(SettingsError, match="would change nothing"):
                read_records(find_source(source), [tmp_path / "a.txt"], ReadOptions(table=table))
    with pytest.raises(SettingsError, match=r"a\.xml states its own"):
        read_records(find_source("n2c2"), [tmp_path / "a.xml"], ReadOptions(table=TableFormat("latin-1")))
