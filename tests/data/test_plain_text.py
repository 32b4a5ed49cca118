"""Files of plain text: a record a file, its group, its encoding; and formats that only look like text, refused."""

from __future__ import annotations

import codecs
import gzip
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.formats import archives
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import ReadOptions, TableFormat, Tally
from lora_med.data.reading import Reading, read_records
from lora_med.data.record import Passage
from lora_med.errors import DataError, InputMissingError, SettingsError


def reading(*paths: Path, skip_bad: bool = False, encoding: str | None = None, **columns: str) -> Reading:
    source = find_source("plain_text")
    options = ReadOptions(columns, table=TableFormat(encoding=encoding))
    return read_records(source, find_inputs(source, list(map(str, paths))), options, skip_bad=skip_bad)


def texts(found: Reading) -> dict[str, tuple[str, str]]:
    """uid -> group and text."""
    return {one.uid: (one.group, one.text) for one in found if isinstance(one, Passage)}


def folder(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_files_beside_each_other_are_a_group_each(tmp_path: Path) -> None:
    found = texts(
        reading(folder(tmp_path / "txtdir", {"1.txt": "First note.\n", "2.TXT": "Second.", "3.md": "# Third"}))
    )
    assert found == {
        "plain_text:1.txt": ("1.txt", "First note."),
        "plain_text:2.TXT": ("2.TXT", "Second."),
        "plain_text:3.md": ("3.md", "# Third"),
    }


FOLDERS = {"p1/a.txt": "A.", "p1/2020/a.txt": "B.", "p2/a.txt": "C.", "loose.txt": "D."}


def test_the_files_of_a_sub_folder_are_one_group_however_deep(tmp_path: Path) -> None:
    found = texts(reading(folder(tmp_path, FOLDERS)))
    assert sorted((text, group) for group, text in found.values()) == [
        ("A.", "p1"),
        ("B.", "p1"),
        ("C.", "p2"),
        ("D.", next(group for group, text in found.values() if text == "D.")),
    ]
    assert len({group for group, _ in found.values()}) == 3 and len(found) == 4


def test_a_zip_of_folders_groups_them_as_the_folders_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        for name, text in FOLDERS.items():
            archive.writestr(f"notes/{name}", text)
        archive.writestr("notes/picture.png", b"\x89PNG")
    found = texts(reading(tmp_path / "notes.zip"))
    assert sorted(text for _, text in found.values()) == ["A.", "B.", "C.", "D."]
    assert {group for group, text in found.values() if text in ("A.", "B.")} == {"p1"}
    assert "plain_text:notes.zip/notes/p1/2020/a.txt" in found


def test_how_files_are_grouped_is_said_and_documents_beside_them_in_a_zip_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        for name, text in {**FOLDERS, "p1/scan.pdf": "%PDF-1.7"}.items():
            archive.writestr(name, text)
    with caplog.at_level(logging.INFO):
        list(reading(tmp_path / "notes.zip"))
        list(reading(folder(tmp_path / "flat", {"1.txt": "A.", "2.txt": "B."})))
    assert "4 texts in 3 groups: the files of a sub-folder are one" in caplog.text
    assert "2 texts in 2 groups: each file is one" in caplog.text
    assert "not read, because no source reads their format: 1 of .pdf" in caplog.text


def test_data_columns_group_makes_each_file_a_group(tmp_path: Path) -> None:
    assert len({group for group, _ in texts(reading(folder(tmp_path, FOLDERS), group="file")).values()}) == 4
    for columns in ({"group": "patient"}, {"text": "note"}):
        with pytest.raises(SettingsError, match="plain_text has no columns"):
            read_records(find_source("plain_text"), [tmp_path / "loose.txt"], ReadOptions(columns))


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + "Fièvre.\nElle va.".encode(),
        codecs.BOM_UTF16_LE + "Fièvre.\nElle va.".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "Fièvre.\nElle va.".encode("utf-16-be"),
        codecs.BOM_UTF32_LE + "Fièvre.\nElle va.".encode("utf-32-le"),
        "Fièvre.\r\nElle va.\r\n".encode(),
        "Fièvre.\rElle va.".encode(),
    ],
)
def test_a_mark_tells_the_encoding_and_lines_end_in_one_way(content: bytes, tmp_path: Path) -> None:
    found = texts(reading(folder(tmp_path, {"a.txt": content})))
    assert found == {"plain_text:a.txt": ("a.txt", "Fièvre.\nElle va.")}


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("windows-1252", "look like Windows-1252"), ("utf-16-le", "like UTF-16-LE"), ("utf-16-be", "like UTF-16-BE")],
)
def test_another_encoding_is_refused_with_its_likely_name_and_read_when_it_is_stated(
    encoding: str, said: str, tmp_path: Path
) -> None:
    path = folder(tmp_path, {"a.txt": "Fièvre élevée, 38° — œdème.".encode(encoding)}) / "a.txt"
    with pytest.raises(DataError, match=said) as caught:
        list(reading(path))
    assert "a.txt" in (caught.value.where or "") and f"data.encoding={encoding}" in (caught.value.fix or "")
    assert "vre" not in str(caught.value)
    assert texts(reading(path, encoding=encoding))["plain_text:a.txt"][1] == "Fièvre élevée, 38° — œdème."


def test_an_encoding_that_does_not_exist_or_does_not_fit_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, {"a.txt": "Fièvre.".encode("latin-1")}) / "a.txt"
    with pytest.raises(SettingsError, match=r"no encoding named 'utf-9'"):
        list(reading(path, encoding="utf-9"))
    with pytest.raises(DataError, match="the file is not ascii"):
        list(reading(path, encoding="ascii"))
    path.write_bytes("Fièvre.".encode())
    with pytest.raises(DataError, match=r"data\.encoding says latin-1, and the file is UTF-8"):
        list(reading(path, encoding="latin-1"))


def test_a_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a NUL character: it is not plain text") as caught:
        list(reading(folder(tmp_path, {"a.txt": "A note.\x00 And more of it."})))
    assert (caught.value.where or "").endswith("a.txt, character 7")


def test_empty_files_are_counted_and_if_all_are_empty_that_is_an_error(tmp_path: Path) -> None:
    found = reading(folder(tmp_path, {"a.txt": "", "b.txt": " \n", "c.txt": "Text."}))
    assert list(texts(found)) == ["plain_text:c.txt"]
    assert found.tally == Tally(3, 1, {"empty_file": 2})
    (tmp_path / "c.txt").unlink()
    with pytest.raises(DataError, match="the file holds only blanks"):
        list(reading(tmp_path))


def test_a_text_too_long_for_a_record_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LONGEST_BYTES", 100)
    folder(tmp_path, {"a.txt": "word " * 30, "b.txt": "Text."})
    with pytest.raises(DataError, match="a document of more than 100 bytes"):
        list(reading(tmp_path))
    assert list(texts(reading(tmp_path, skip_bad=True))) == ["plain_text:b.txt"]


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600
UNSUPPORTED: list[tuple[str, bytes, str]] = [
    ("a.txt", rb"{\rtf1\ansi A note.}", "RTF"),
    ("a.rtf", b"A note.", "RTF"),
    ("a.txt", b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
    ("a.PDF", b"A note.", "a PDF"),
    ("a.txt", OLE, "a document of an old Office"),
    ("a.doc", b"A note.", "a document of an old Office"),
    ("a.txt", b"<!DOCTYPE html>\n<html><body>A note.</body></html>", "HTML"),
    ("a.txt", b'\xef\xbb\xbf<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"/>', "HTML"),
    ("a.html", b"A note.", "HTML"),
    ("a.txt", b"BZh91AY&SY\x00", "a 7z, rar, bzip2, xz or zstd archive"),
    ("a.txt.xz", b"\xfd7zXZ\x00", "a 7z, rar, bzip2, xz or zstd archive"),
]


@pytest.mark.parametrize("source", ["plain_text", "pmc", "custom", "conll", "clinicaltrials", "pubmed"])
@pytest.mark.parametrize(("name", "content", "said"), UNSUPPORTED)
def test_a_format_that_is_not_read_is_refused_by_name_whatever_the_source(
    source: str, name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    folder(tmp_path, {name: content, f"{name}.gz": gzip.compress(content)})
    found = find_source(source)
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        refused = read_records(found, find_inputs(found, [str(path)]), ReadOptions())
        with pytest.raises(DataError, match=f"it is {said}.*, which is not read") as caught:
            list(refused)
        assert caught.value.where == str(path) and caught.value.fix and "note" not in caught.value.what


@pytest.mark.parametrize(
    ("member", "said"),
    [("word/document.xml", "Word"), ("ppt/presentation.xml", "PowerPoint"), ("xl/workbook.xml", "Excel")],
)
def test_an_office_file_is_no_archive_of_articles(member: str, said: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(member, "<a/>")
    found = find_source("pmc")
    with pytest.raises(DataError, match=said):
        list(read_records(found, [tmp_path / "a.zip"], ReadOptions()))


def test_a_member_of_a_format_that_is_not_read_does_not_affect_the_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", r"{\rtf1 A.}")
        archive.writestr("b.txt", "B.")
    with pytest.raises(DataError, match="it is RTF") as caught:
        list(reading(tmp_path / "a.zip"))
    assert (caught.value.where or "").endswith("a.zip, member a.txt")
    found = reading(tmp_path / "a.zip", skip_bad=True)
    assert [text for _, text in texts(found).values()] == ["B."]
    assert found.tally.dropped == {"unsupported_format": 1}


def test_documents_that_a_folder_holds_beside_texts_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path, {"a.txt": "A.", "b.pdf": b"%PDF-1.7", "in/c.rtf": rb"{\rtf1}", "d.pdf": b"%PDF-1.7"})
    with caplog.at_level(logging.WARNING):
        assert len(texts(reading(tmp_path))) == 1
    assert "2 of .pdf, 1 of .rtf" in caplog.text
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputMissingError, match=r"but 2 of \.pdf, 1 of \.rtf") as caught:
        reading(tmp_path)
    assert "plain text" in (caught.value.fix or "") or "pdftotext" in (caught.value.fix or "")
