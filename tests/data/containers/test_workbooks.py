"""Excel workbooks: which sheet, cells as they are shown, and what a row cannot hold."""

from __future__ import annotations

import datetime
import io
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from lora_med.data.formats.containers.cell_text import cell_text
from tests.data.containers.reading_rows import outcomes, refusal, values


def book(sheets: dict[str, list[list[Any]]], formats: dict[str, str] | None = None, merge: str = "") -> bytes:
    made = openpyxl.Workbook()
    made.remove(made.worksheets[0])
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
        for cell, form in (formats or {}).items():
            sheet[cell].number_format = form
        if merge:
            sheet.merge_cells(merge)
    stream = io.BytesIO()
    made.save(stream)
    return stream.getvalue()


def edited(content: bytes, member: str, old: str, new: str) -> bytes:
    """The workbook with a text of one of its XML files replaced, as other programs write it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            raw = source.read(name).decode() if name == member else None
            assert raw is None or old in raw, raw
            target.writestr(name, source.read(name) if raw is None else raw.replace(old, new))
    return stream.getvalue()


ROWS = [["text", "label"], ["A note", "x"]]
AX = [{"text": "A note", "label": "x"}]
SHEET = "xl/worksheets/sheet1.xml"


def test_of_several_sheets_with_rows_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    content = book({"Info": [["about"]], "Notes": ROWS, "Empty": []})
    said = refusal(path, content)
    assert "2 sheets with rows: Info, Notes" in said and "--sheet 'Info'" in said and "data.sheet" in said
    assert values(path, content, sheet="Notes") == AX
    assert values(path, content, sheet="notes") == AX
    assert "did you mean 'Notes'" in refusal(path, content, sheet="Note")
    assert values(path, book({"Empty": [], "Notes": ROWS})) == AX
    assert outcomes(path, book({"Empty": []})) == []


def test_cells_are_the_texts_that_they_show(tmp_path: Path) -> None:
    row = [1.0, 7, 0.125, 123, datetime.date(2024, 3, 1), datetime.datetime(2024, 3, 1, 14, 30), True, "01", None]
    names = [f"c{number}" for number in range(len(row))]
    content = book({"Notes": [names, row]}, {"C2": "0.0%", "D2": "000000"})
    (found,) = values(tmp_path / "a.xlsx", content)
    shown = ["1", "7", "12.5%", "000123", "2024-03-01", "2024-03-01 14:30:00", "TRUE", "01", None]
    assert list(found.values()) == shown


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (5, "General", "5"),
        (1.0, "General", "1"),
        (0.1 + 0.2, "General", "0.3"),
        (37.65, "General", "37.65"),
        (123456789012, "General", "123456789012"),
        (1.5e-7, "General", "0.00000015"),
        (1e21, "General", "1000000000000000000000"),
        (37.65, "0", "38"),
        (2.5, "0", "3"),
        (37.6, "0.00", "37.60"),
        (1234567.5, "#,##0.00", "1,234,567.50"),
        (999, "#,##0", "999"),
        (12, "00000", "00012"),
        (0.5, "0%", "50%"),
        (0.1234, "0.00%", "12.34%"),
        (5, '0" mg"', "5 mg"),
        (5.25, '0.0" mg/dl"', "5.3 mg/dl"),
        (12.5, '"$"#,##0.00', "$12.50"),
        (12.5, "#,##0.00\\ [$€-407]", "12.50 €"),
        (-3, '0;"minus "0', "minus 3"),
        (-3.5, "0.0", "-3.5"),
        (-3.5, "0.0_);[Red]\\(0.0\\)", "(3.5)"),
        (0, '0;-0;"none"', "0"),
        (123456789, "000\\-00\\-0000", "123-45-6789"),
        (5551234567, "(000) 000-0000", "(555) 123-4567"),
        (5, "0.##", "5"),
        (5.5, "0.##", "5.5"),
        (0.5, "#.00", ".50"),
        (0.25, "# ?/?", "0.25"),
        (12000, "0.00E+00", "12000"),
        (5, "[>3]0.0;0", "5"),
        (5000, "0,", "5000"),
        (7, "@", "7"),
        (7, 'General" g"', "7 g"),
        (datetime.time(8, 5), "h:mm", "08:05:00"),
        (datetime.timedelta(hours=26, minutes=3), "[h]:mm", "26:03:00"),
        (datetime.datetime(2024, 3, 1, 8, 5), "dd.mm.yyyy", "2024-03-01"),
        (datetime.datetime(2024, 3, 1, 8, 5, 59, 999_600), "yyyy-mm-dd hh:mm:ss", "2024-03-01 08:06:00"),
        (False, "General", "FALSE"),
        ("a_x000D_\nb", "General", "a\r\nb"),
        (None, "General", None),
    ],
)
def test_a_number_format_is_followed(value: Any, form: str, shown: str | None) -> None:
    assert cell_text(value, form) == shown


def test_rows_without_a_value_and_columns_without_a_heading(tmp_path: Path) -> None:
    rows = [[None], ["text", None, "label"], ["A", "beside", "x"], [None, None], ["B", None, "y", "beyond"]]
    first, second = values(tmp_path / "a.xlsx", book({"Notes": rows}))
    assert first == {"text": "A", "column 2 (no name)": "beside", "label": "x"}
    assert second == {"text": "B", "label": "y", "column 4 (no name)": "beyond"}


def test_a_sheet_that_says_it_has_one_cell_is_read_completely(tmp_path: Path) -> None:
    content = edited(book({"Notes": ROWS}), SHEET, 'ref="A1:B2"', 'ref="A1"')
    assert values(tmp_path / "a.xlsx", content) == AX


def test_what_a_row_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    headings = [["Note", None], ["text", "label"], ["A", "x"]]
    assert "headings A1:B1 are merged" in refusal(path, book({"N": headings}, merge="A1:B1"))
    patients = [["patient", "text"], ["p1", "A"], [None, "B"]]
    assert "cells A2:A3 are merged" in refusal(path, book({"N": patients}, merge="A2:A3"))
    assert "B2 holds a formula" in refusal(path, book({"N": [["text", "n"], ["A", "=1+1"]]}))
    assert "has one cell (Export), and this one 2" in refusal(path, book({"N": [["Export"], ["text", "label"]]}))
    assert "same name: text" in refusal(path, book({"N": [["text", "text"], ["A", "x"]]}))
    said = refusal(path, book({"N": [["text", "n"], ["A", "#N/A"], ["B", 1]]}))
    assert "B2 holds the error #N/A" in said
    assert "not an Excel workbook" in refusal(path, b"PK\x03\x04" + b"x" * 50)
    assert "not an Excel workbook" in refusal(path, b"\xd0\xcf\x11\xe0" + b"x" * 50)


def test_a_formula_with_its_value_is_read(tmp_path: Path) -> None:
    content = edited(book({"N": [["text", "n"], ["A", "=1+1"]]}), SHEET, "<f>1+1</f><v></v>", "<f>1+1</f><v>2</v>")
    assert values(tmp_path / "a.xlsx", content) == [{"text": "A", "n": "2"}]


def test_a_workbook_in_another_namespace_has_no_sheet_and_is_refused(tmp_path: Path) -> None:
    usual, strict = (
        "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
        "http://purl.oclc.org/ooxml/x",
    )
    content = edited(book({"N": ROWS}), "xl/workbook.xml", usual, strict)
    content = edited(content, "xl/workbook.xml", "spreadsheetml/2006/main", "spreadsheetml/strict")
    assert "no sheet that can be read" in refusal(tmp_path / "a.xlsx", content)


def test_old_workbooks_are_named(tmp_path: Path) -> None:
    assert "save it as .xlsx" in refusal(tmp_path / "a.xls", b"\xd0\xcf\x11\xe0")
