"""Reading nothing is no success, skipping much is said, and nobody is told to skip a whole file."""

from __future__ import annotations

import gzip
import io
import json
import logging
import tarfile
import zipfile
from pathlib import Path

import pytest

from lora_med.cli.main import run
from lora_med.config.data_settings import DataSettings
from lora_med.data.catalog import SOURCES, find_source
from lora_med.data.corpus import open_corpus, open_heldout
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import ReadOptions, Tally
from lora_med.data.reading import Reading, read_records
from lora_med.errors import DataError


def reading(source: str, path: Path, *, skip_bad: bool = False, **columns: str) -> Reading:
    row = find_source(source)
    return read_records(row, find_inputs(row, [str(path)]), ReadOptions(columns), skip_bad=skip_bad)


def archive(path: Path, **members: str) -> Path:
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as file:
            for name, text in members.items():
                file.writestr(name.replace("_", "."), text)
    else:
        with tarfile.open(path, "w") as file:
            for name, text in members.items():
                info = tarfile.TarInfo(name.replace("_", "."))
                info.size = len(text.encode())
                file.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("ending", ["zip", "tar"])
@pytest.mark.parametrize("source", ["pmc", "clinicaltrials", "medquad", "bioc"])
def test_an_archive_without_a_document_is_an_error_that_says_what_is_in_it(
    source: str, ending: str, skip_bad: bool, tmp_path: Path
) -> None:
    path = archive(tmp_path / f"a.{ending}", a_txt="no", b_csv="text")
    with pytest.raises(DataError) as caught:
        list(reading(source, path, skip_bad=skip_bad))
    assert caught.value.exit_code == 65
    assert "of its 2 files none has a name that ends in" in caught.value.what
    assert ("1 read, 0 kept; dropped: no_document 1" in caught.value.what) == skip_bad
    assert "skip" not in str(caught.value.fix)


def test_an_empty_zip_holds_no_document(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of its 0 files none"):
        list(reading("pmc", archive(tmp_path / "a.zip")))


def test_a_file_whose_every_row_is_dropped_by_design_is_an_error_with_the_counts(tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "question": f"Q{n}?", "opa": "a", "opb": "b", "opc": "c", "opd": "d"} for n in range(3)]
    path = tmp_path / "test.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"no record was retained: 3 read, 0 kept; dropped: empty_answer 3"):
        list(reading("medmcqa", path))
    assert run(["data", "read", "medmcqa", str(path), "--out", str(tmp_path / "o")]) == 65
    assert not (tmp_path / "o").exists()


def test_skipping_everything_is_an_error_that_names_the_first_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"note": "x"}\n{"note": "y"}\nno json\n')
    with pytest.raises(DataError) as caught:
        list(reading("custom", path, skip_bad=True, text="report"))
    assert "3 read, 0 kept; dropped: bad_json 1, missing_column 2" in caught.value.what
    assert f"the first fault, at {path}:1: no column 'report'" in caught.value.what
    assert "skip" not in str(caught.value.fix)


@pytest.mark.parametrize("source", [name for name, row in SOURCES.items() if ".csv" in row.suffixes])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_table_of_a_header_alone_is_an_error(source: str, skip_bad: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n")
    with pytest.raises(DataError) as caught:
        list(reading(source, path, skip_bad=skip_bad))
    assert not skip_bad or "0 kept" in caught.value.what or "0 read" in caught.value.what


def test_a_published_split_without_an_answer_stops_only_who_asks_for_it(tmp_path: Path) -> None:
    def item(n: int, **more: object) -> str:
        options = {"opa": f"a{n}", "opb": "b", "opc": "c", "opd": "d"}
        return json.dumps({"id": f"{n}", "question": f"Question {n} of it?", **options, **more}) + "\n"

    for name, numbers, answer in (
        ("train", range(8), {"cop": 4}),
        ("dev", range(8, 10), {"cop": 4}),
        ("test", (20,), {}),
    ):
        (tmp_path / f"{name}.json").write_text("".join(item(n, **answer) for n in numbers))
    data = DataSettings(source="medmcqa", paths=[str(tmp_path)], near_duplicate_similarity=0)
    corpus = open_corpus(data)
    assert (len(corpus.train), len(corpus.validation)) == (8, 2)
    assert corpus.tally == Tally(11, 10, {"empty_answer": 1})
    with pytest.raises(DataError, match="the test split is empty"):
        open_heldout(data, "test")


@pytest.mark.parametrize(("bad", "warned"), [(1, False), (2, True)])
def test_more_than_a_tenth_skipped_is_a_warning_with_the_shares(
    bad: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": f"Text {n}."}) for n in range(10 - bad)] + ["no json", '{"text": ""}'][:bad]
    path.write_text("\n".join(lines) + "\n")
    records = reading("custom", path, skip_bad=True)
    with caplog.at_level(logging.WARNING):
        assert len(list(records)) == len(list(records)) == 10 - bad
    assert len(caplog.messages) == warned, "once, however often it is read"
    if warned:
        assert caplog.messages == [
            f"skip_bad left out 2 of 10 items of {path}: bad_json 10.0%, empty_text 10.0%",
        ]


def message(path: Path, source: str = "custom") -> DataError:
    with pytest.raises(DataError) as caught:
        list(reading(source, path))
    return caught.value


def test_one_bad_line_among_good_ones_may_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for lines in (["{}", '{"text": "b"}'], ['{"text": "b"}', "no json"], ['{"text": "b"}', "{}", '{"text": "c"}']):
        path.write_text("\n".join(lines) + "\n")
        assert "--skip-bad" in str(message(path).fix), lines


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text\n" + b"".join(b"q%d,a%d\n" % (n, n) for n in range(30))),  # the delimiter
        ("a.jsonl", b"".join(b'{"nonsense": "%d"}\n' % n for n in range(30))),  # the layout
        (
            "b.jsonl",
            b'{"text": "a"}\n' + '{"text": "\u00e9"}\n'.encode("latin-1") + b'{"text": "b"}\n',
        ),  # the encoding
        ("c.jsonl", b"{}\n"),  # nothing else is in the file
        ("d.jsonl", b'{"text": "a"}\n' + b"{}\n" * 10),  # the rest of it
    ],
)
def test_the_fault_of_a_whole_file_comes_without_the_advice_to_skip(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert "skip" not in str(message(path))


def test_a_damaged_archive_comes_without_the_advice_to_skip(tmp_path: Path) -> None:
    study = "<clinical_study><id_info><nct_id>NCT{}</nct_id></id_info><brief_title>T {}</brief_title></clinical_study>"
    made = archive(tmp_path / "a.zip", **{f"s{n}_xml": study.format(n, n) for n in range(4)})
    (tmp_path / "b.zip").write_bytes(made.read_bytes()[:-60])
    tar = archive(tmp_path / "a.tar", **{f"s{n}_xml": study.format(n, n) * 40 for n in range(4)})
    (tmp_path / "b.tar").write_bytes(tar.read_bytes()[:1400])
    (tmp_path / "b.xml.gz").write_bytes(gzip.compress(study.format(1, 1).encode())[:-9])
    for name in ("b.zip", "b.tar", "b.xml.gz"):
        assert "skip" not in str(message(tmp_path / name, "clinicaltrials")), name


def test_a_damaged_document_among_others_may_be_skipped(tmp_path: Path) -> None:
    study = (
        "<clinical_study><id_info><nct_id>NCT0000000{}</nct_id></id_info><brief_title>T</brief_title></clinical_study>"
    )
    for number in range(3):
        (tmp_path / f"{number}.xml").write_text(study.format(number) if number != 1 else "<clinical_study>")
    assert "--skip-bad" in str(message(tmp_path, "clinicaltrials").fix)
