"""Your own rows: every format and shape, what is refused with file and line, and fuzzed files."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_med.config.data_settings import DataSettings
from lora_med.data.catalog import find_source
from lora_med.data.corpus import open_corpus
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.formats.jsonl import as_line
from lora_med.data.formats.tables import TableRow, rows
from lora_med.data.outcome import HubSet, ReadOptions, Tally
from lora_med.data.reading import read_records
from lora_med.data.record import Pair, Passage, Question, Record
from lora_med.errors import DataError, InputMissingError, LoraMedError, SettingsError
from tests.data.real_files import REAL, needs_real

SECRET = "Mrs Zebra has gout"


def read(
    *paths: Path | str, skip_bad: bool = False, source: str = "custom", **columns: str
) -> tuple[list[Record], Tally]:
    found = find_source(source)
    inputs = find_inputs(found, [str(path) for path in paths])
    reading = read_records(found, inputs, ReadOptions(columns), skip_bad=skip_bad, access="open")
    records = list(reading)
    assert reading.tally.read == reading.tally.kept + sum(reading.tally.dropped.values())
    assert len(records) == reading.tally.kept
    return records, reading.tally


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def as_csv(path: Path, table: list[dict[str, str]], delimiter: str = ",") -> None:
    with open(path, "w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.DictWriter(handle, list(table[0]), delimiter=delimiter, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(table)


def as_parquet(path: Path, table: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)


TABLE = [
    {"note": 'Line one\r\nline "two", \t end', "id": "n1", "patient": "p1"},
    {"note": "Ménière 高血压", "id": "n2", "patient": "p1"},
]
WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: write(path, "\ufeff" + "".join(json.dumps(row) + "\n\n" for row in TABLE)),
    "a.json": lambda path: write(path, "  \n" + json.dumps(TABLE, indent=1)),
    "lines.json": lambda path: write(path, "\n".join(map(json.dumps, TABLE))),
    "a.csv": lambda path: as_csv(path, TABLE),
    "a.tsv": lambda path: as_csv(path, TABLE, "\t"),
    "a.parquet": lambda path: as_parquet(path, TABLE),
    "a.jsonl.gz": lambda path: write(path, gzip.compress("\n".join(map(json.dumps, TABLE)).encode())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_records(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    records, tally = read(tmp_path / name, text="note", uid="id", group="patient")
    assert records == [
        Passage("n1", "p1", "custom", 'Line one\nline "two", \t end'),
        Passage("n2", "p1", "custom", "Ménière 高血压"),
    ]
    assert tally == Tally(2, 2, {})


def test_uid_is_file_and_line_and_group_hangs_on_the_text_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,n\n"one\ntwo",1\nthree,2\n')
    other = write(tmp_path / "b.jsonl", '{"text": "three", "n": 2, "title": "T"}\n')
    (first, second), _ = read(path)
    (third,), _ = read(other)
    assert [first.uid, second.uid, third.uid] == ["a.csv:2", "a.csv:4", "b.jsonl:1"]
    assert second.group == third.group != first.group


def test_files_of_one_name_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.jsonl", json.dumps({"text": folder}))
    records, _ = read(tmp_path)
    assert [record.uid for record in records] == ["x/a.jsonl:1", "y/a.jsonl:1"]
    corpus = open_corpus(DataSettings(source="custom", paths=[str(tmp_path)], validation_share=0, test_share=0))
    assert list(corpus.hashes) == ["x/a.jsonl", "y/a.jsonl"]


def test_shapes_become_their_kinds(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ]
    shapes: dict[str, dict[str, Any]] = {
        "text": {"text": "t", "title": "T"},
        "pair": {"prompt": "p", "completion": "c"},
        "messages": {"messages": turns},
        "sides": {"prompt": turns[:-1], "completion": turns[-1:]},
        "question": {"question": "q", "answer": "b", "options": {"A": "a", "B": "b"}, "contexts": ["x", "y"]},
    }
    found = {
        name: read(write(tmp_path / f"{name}.jsonl", json.dumps({"uid": 1, "group": "g", **row})))[0][0]
        for name, row in shapes.items()
    }
    assert found["text"] == Passage("1", "g", "custom", "t", "T")
    assert found["pair"] == Pair("1", "g", "custom", "p", "c")
    history = (("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"))
    assert found["messages"] == found["sides"] == Pair("1", "g", "custom", "Why?", "So.", history=history)
    assert found["question"] == Question("1", "g", "custom", "q", "b", ("x", "y"), ("a", "b"))


@pytest.mark.parametrize(
    ("row", "template"),
    [
        ({"text": "t"}, "text"),
        ({"prompt": "p", "completion": "c"}, "pair"),
        ({"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]}, "pair_chat_v2"),
        ({"question": "q", "answer": "a"}, "question_chat_v2"),
    ],
)
def test_the_default_template_fits_what_was_read(tmp_path: Path, row: dict[str, Any], template: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    corpus = open_corpus(DataSettings(source="custom", paths=[str(path)], validation_share=0, test_share=0))
    assert corpus.source.template == template


def test_the_order_of_the_rows_does_not_choose_the_template(tmp_path: Path) -> None:
    one = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]
    several = [*one, {"role": "user", "content": "q"}, {"role": "assistant", "content": "d"}]
    earlier = {"prompt": "p2", "completion": "c2", "history": one}
    for table, template in (
        ([{"messages": one}, {"messages": several}], "pair_chat_v2"),
        ([{"prompt": "p", "completion": "c"}, earlier], "pair_chat_v2"),
        ([{"prompt": "p", "completion": "c"}, {"prompt": "p3", "completion": "c3"}], "pair"),
    ):
        for ordered in (table, table[::-1]):
            path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, ordered)))
            for streaming in (False, True):
                settings = DataSettings(
                    source="custom", paths=[str(path)], validation_share=0, test_share=0, streaming=streaming
                )
                assert open_corpus(settings).template == template


def test_a_turn_says_what_was_thought_before_it(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "c"}
    for key in ("reasoning_content", "reasoning", "thinking"):
        turns = [{"role": "user", "content": "p"}, {**answer, key: " because "}]
        path = write(tmp_path / "a.jsonl", json.dumps({"uid": "1", "group": "g", "messages": turns}))
        assert read(path)[0] == [Pair("1", "g", "custom", "p", "c", reasoning=" because ")]
    for wrong in ([], 1, True):
        path = write(
            tmp_path / "a.jsonl",
            json.dumps({"messages": [{"role": "user", "content": "p"}, {**answer, "reasoning": wrong}]}),
        )
        if wrong:
            with pytest.raises(DataError, match="expected reasoning to be a text"):
                read(path)
        else:
            assert read(path)[0][0].reasoning == ""  # type: ignore[union-attr]


def test_reasoning_is_a_part_of_the_content() -> None:
    from lora_med.data.reading import content
    from lora_med.data.record import texts_of

    plain, thought = Pair("1", "g", "custom", "p", "c"), Pair("1", "g", "custom", "p", "c", reasoning="why")
    assert content(plain) != content(thought)
    assert (texts_of(plain), texts_of(thought)) == (("p", "c"), ("p", "why", "c"))
    assert plain != thought and "reasoning" not in repr(plain)


def test_what_data_read_writes_is_read_back(tmp_path: Path) -> None:
    records: list[Record] = [
        Pair("a", "g", "custom", "in", "out", "PLAN", (("user", "u"), ("assistant", "v"))),
        Pair("b", "h", "custom", "in2", "out2"),
        Pair("c", "h", "custom", "in3", "out3", reasoning="so", in_turns=True),
    ]
    path = write(tmp_path / "a.jsonl", b"".join(map(as_line, records)))
    assert read(path)[0] == records
    assert [record.in_turns for record in read(path)[0]] == [False, False, True]  # type: ignore[union-attr]


BAD_LINES = {
    "bad_json": (f'{{"text": "{SECRET}"', "not one JSON object"),
    "bad_type": (json.dumps({"text": [SECRET]}), "expected a text, got list"),
    "missing_column": (json.dumps({SECRET: "x"}), "no column 'text'"),
    "empty_text": (json.dumps({"text": "  \n"}), "it is empty"),
    "bad_utf8": (b'{"text": "' + SECRET.encode() + b'\xff"}', "not UTF-8"),
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_line_is_named_by_file_and_line_and_skipped_on_request(tmp_path: Path, reason: str) -> None:
    line, expected = BAD_LINES[reason]
    raw = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path / "a.jsonl", b'{"text": "one"}\n' + raw + b'\n{"text": "three"}\n')
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.where == f"{path}:2"
    assert expected in str(caught.value)
    assert not set(SECRET.split()) & set(str(caught.value).replace("'", " ").replace('"', " ").split())
    records, tally = read(path, skip_bad=True)
    assert [record.uid for record in records] == ["a.jsonl:1", "a.jsonl:3"]
    assert tally == Tally(3, 2, {reason: 1})


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b"", "empty"),
        ("a.parquet", b"", "empty"),
        ("a.parquet", b"PAR1 " + SECRET.encode(), "not Parquet"),
        ("a.json", b'[{"text": "' + SECRET.encode() + b'"},', "ends early"),
        ("a.json", b"[1]", "expected a JSON object, got a number"),
        ("a.jsonl.gz", gzip.compress(json.dumps({"text": SECRET}).encode(), mtime=0)[:-9], "ends early"),
        ("a.csv", b"text,text\na,b\n", "same name"),
        ("a.csv", b"text,n\n" + SECRET.encode() + b"\n", "expected 2 cells"),
        ("a.csv", b'text,n\n"' + SECRET.encode() + b",1\n", "not closed"),
        ("a.csv", b"text,n\n" + SECRET.encode() + b"\xff,1\n", "not UTF-8"),
        ("a.dat", b"x", "does not say its format"),
    ],
)
def test_a_bad_file_is_refused_without_its_text(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "Zebra" not in str(caught.value)


def test_a_conversation_that_does_not_end_in_an_answer_is_refused(tmp_path: Path) -> None:
    for turns in (
        [{"role": "user", "content": SECRET}],
        [{"role": "assistant", "content": SECRET}, {"role": "user", "content": SECRET}],
        [{"role": "doctor", "content": SECRET}],
        [SECRET],
        SECRET,
    ):
        path = write(tmp_path / "a.jsonl", json.dumps({"messages": turns}))
        with pytest.raises(DataError) as caught:
            read(path)
        assert "Zebra" not in str(caught.value)


def test_an_unknown_field_and_a_path_that_matches_nothing_give_the_near_name(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.jsonl", '{"text": "x"}')
    with pytest.raises(SettingsError, match="did you mean 'completion'"):
        read(path, completions="x")
    with pytest.raises(InputMissingError, match=r"did you mean .*notes\.jsonl"):
        read(tmp_path / "note.jsonl")
    with pytest.raises(InputMissingError):
        read(f"{tmp_path}/*.csv")
    with pytest.raises(SettingsError, match="no input"):
        read()
    with pytest.raises(InputMissingError, match=r"data\.source=custom"):
        read("owner/name", source="pubmed")


def test_the_same_content_is_counted_and_the_same_uid_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x", "uid": 1}\n{"text": "x", "uid": 2}\n{"text": "y", "uid": 1}\n')
    with pytest.raises(DataError, match="uid '1'") as caught:
        read(path)
    assert caught.value.where == f"{path}, record 3"
    assert read(path, skip_bad=True)[1] == Tally(3, 2, {"duplicate_uid": 1}, repeated=1)


def test_a_hub_data_set_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "owner" / "name").mkdir(parents=True)  # load_dataset takes a folder for an id
    write(tmp_path / "owner" / "name" / "train.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    monkeypatch.chdir(tmp_path)
    found = [row.values["text"] for row in rows(HubSet("owner/name", None, "train")) if isinstance(row, TableRow)]
    assert found == ["one", "two"]
    with pytest.raises(SettingsError, match="no split 'tset'"):
        list(rows(HubSet("owner/name", None, "tset")))


def test_a_hub_data_set_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(InputMissingError, match="offline=false"):
        read("nobody/nothing-at-all:config")


FUZZED = {
    "a.jsonl": "".join(json.dumps({"text": f"{SECRET} {number}"}) + "\n" for number in range(20)).encode(),
    "a.csv": ("text,n\r\n" + "".join(f'"{SECRET}, {number}",{number}\r\n' for number in range(20))).encode(),
    "a.json": json.dumps([{"text": f"{SECRET} {number}"} for number in range(20)]).encode(),
    "a.xml": (
        "<PubmedArticleSet>"
        + "".join(
            f'<PubmedArticle><MedlineCitation><PMID Version="1">{number}</PMID><Article><Abstract>'
            f"<AbstractText>{SECRET} {number}</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle>"
            for number in range(1, 21)
        )
        + "</PubmedArticleSet>"
    ).encode(),
}


@pytest.mark.parametrize("name", FUZZED)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_file_is_our_error_or_a_correct_count_and_never_shows_its_text(
    tmp_path: Path, name: str, packed: bool
) -> None:
    chance = random.Random(f"{name} {packed}")
    source = "pubmed" if name.endswith("xml") else "custom"
    path = tmp_path / (name + ".gz" if packed else name)
    refused = 0
    for _ in range(150):
        content = bytearray(gzip.compress(FUZZED[name], 1, mtime=0) if packed else FUZZED[name])
        if chance.random() < 0.3:
            del content[chance.randrange(len(content)) :]
        else:
            for _ in range(chance.randint(1, 3)):
                content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(bytes(content))
        for skip_bad in (False, True):
            try:
                read(path, source=source, skip_bad=skip_bad)
            except LoraMedError as error:
                refused += 1
                assert error.exit_code in (2, 65)
                assert "Zebra" not in str(error)
                assert "gout" not in str(error)
    assert refused > 10


@needs_real
def test_the_real_dialogues_are_read_with_line_breaks_in_their_cells() -> None:
    path = REAL / "mts_dialog" / "MTS-Dialog-TrainingSet.csv"
    records, tally = read(path, prompt="dialogue", completion="section_text", uid="ID")
    assert tally == Tally(1201, 1201, repeated=1)
    assert any("\n" in record.input for record in records if isinstance(record, Pair))


LABELED = "text,kind,uid\nNeeds a refill,refill,a\nWants a visit,visit,b\nOther matters,7,c\n"


def test_a_label_column_makes_texts_to_be_classified(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(LABELED)
    (first, *_, last), _ = read(path, label="kind")
    assert first == Question("a", first.group, "custom", "Needs a refill", "refill", options=("7", "refill", "visit"))
    assert isinstance(last, Question) and last.answer == "7"
    (plain, *_), _ = read(path)
    assert isinstance(plain, Passage), "a label column that nobody named changes nothing"
    corpus = open_corpus(
        DataSettings(source="custom", paths=[str(path)], columns={"label": "kind"}, validation_share=0, test_share=0)
    )
    assert corpus.template == "label"


@pytest.mark.parametrize(
    ("content", "labels", "said"),
    [
        ("text,kind\nA,\nB,x\nC,y\n", None, "rows.csv:2"),
        ("text,kind\nA,x\nB,x\n", None, "one value only"),
        ("text,kind\n" + "".join(f"T{n},{n}\n" for n in range(60)), None, "more than 50 different values"),
        ("text,kind\nA,x\nB,z\n", ["x", "y"], "expected one of the 2 classes"),
        ("text,other\nA,x\nB,z\n", ["x", "y"], "no column 'kind'"),
    ],
)
def test_labels_that_are_none_are_refused(content: str, labels: list[str] | None, said: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(content)
    settings = DataSettings(
        source="custom", paths=[str(tmp_path / "rows.csv")], columns={"text": "text", "label": "kind"}, labels=labels
    )
    with pytest.raises(LoraMedError) as caught:
        open_corpus(settings)
    assert said in str(caught.value)


def test_parts_with_other_classes_are_refused_until_all_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,kind\nA,x\nB,y\nC,z\n")
    (tmp_path / "test.csv").write_text("text,kind\nD,x\nE,y\n")
    given = {"source": "custom", "paths": [str(tmp_path)], "columns": {"text": "text", "label": "kind"}}
    with pytest.raises(DataError, match=r"other classes: x, y, z; x, y|other classes: x, y; x, y, z"):
        open_corpus(DataSettings(**given), access="registered")
    for access in (None, "credentialed"):  # a class may be what the row of a patient says
        with pytest.raises(DataError) as caught:
            open_corpus(DataSettings(**given), access=access)
        assert {"2 classes", "3 classes"} == set(caught.value.what.rpartition(": ")[2].split("; "))
    corpus = open_corpus(DataSettings(**given, labels=["x", "y", "z"], validation_share=0))
    assert len(corpus.train) == 3
    with pytest.raises(SettingsError, match="no column holds them"):
        open_corpus(DataSettings(source="custom", paths=[str(tmp_path)], labels=["x", "y"]))
