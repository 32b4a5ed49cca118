"""What is prepared is made once a machine, by whoever is there, and what a killed process left is not believed."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lora_med.config.parse import parse
from lora_med.config.schema import Settings, TrainSettings
from lora_med.data.corpus import Corpus, open_corpus
from lora_med.data.record import Annotated, Bibliography, Pair, Passage, Question, Record, Section, Span, Term
from lora_med.errors import DataError, DiskError, StoppedError
from lora_med.training.preparation import opened_corpus, token_files
from lora_med.training.preparation.once_a_machine import once_a_machine
from lora_med.training.preparation.opened_corpus import OpenedRecords, open_once
from lora_med.training.preparation.preparer import Preparer
from lora_med.training.preparation.record_json import read_records, write_records
from lora_med.training.preparation.row_files import RowFile, write_row_file
from lora_med.training.rows.arrow_rows import open_arrow_rows
from lora_med.training.rows.prepared_rows import Preparation
from lora_med.training.rows.token_cache import data_key, prepares_rows
from lora_med.workflows.split_rows import SplitRows
from tests.training.support import fork, make_base, wait
from tests.training.test_arrow_rows import passages, text_rows

SAMPLE = {"pubmed": "sample:pubmed_sample.xml.gz", "pubmedqa": "sample:qa_sample.json"}


def settings_of(folder: Path, *more: str, source: str = "pubmed") -> Settings:
    return parse(None, [f"data.source={source}", f"data.paths=[{SAMPLE[source]}]", f"train.output_dir={folder}", *more])


def opened(settings: Settings, preparer: Preparer | None = None) -> Corpus:
    return open_once(settings.data, None, Path(settings.train.output_dir), preparer or Preparer())


def same(one: Corpus, other: Corpus) -> bool:
    """Every field, the records too."""
    own, theirs = ({f.name: getattr(each, f.name) for f in fields(each)} for each in (one, other))
    for split in ("train", "validation"):
        own[split], theirs[split] = list(own[split]), list(theirs[split])
    return own == theirs


@pytest.fixture(params=["this process", "another"])
def where(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Records are read in this process where there are few, else in another; the tests try both."""
    monkeypatch.setattr(opened_corpus, "LEAST_BYTES", 0 if request.param == "another" else 1 << 60)
    return request.param


@pytest.mark.parametrize("source", SAMPLE)
def test_a_corpus_opened_once_is_that_of_open_corpus(tmp_path: Path, source: str, where: str) -> None:
    settings = settings_of(tmp_path, source=source)
    expected, preparer = open_corpus(settings.data), Preparer()
    first, again = opened(settings, preparer), opened(settings, preparer)
    assert len(first.train) == len(expected.train) and len(first.validation) == len(expected.validation)
    assert same(first, expected) and same(again, expected)
    assert data_key(settings, first) == data_key(settings, expected)
    preparer.close()
    assert same(opened(settings, preparer), expected)  # read again, where the process that held them has ended
    preparer.close()


def test_a_second_start_reads_no_record_and_says_what_the_first_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path)
    with caplog.at_level(logging.INFO, "lora_med"):
        opened(settings)
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        monkeypatch.setattr(opened_corpus, "open_corpus", None)
        again = opened(settings)
    assert found and [record.getMessage() for record in caplog.records][: len(found)] == found
    assert "no record is read again" in caplog.records[-1].getMessage()
    assert next(iter(again.validation)).text  # type: ignore[union-attr] - the validation records are on disk


def count_openings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Corpus:
        calls.append(1)
        return open_corpus(*arguments, **options)

    monkeypatch.setattr(opened_corpus, "open_corpus", counted)
    return calls


@pytest.mark.parametrize("change", ["content", "setting", "code", "access", "block list", "test file", "damage"])
def test_another_file_setting_or_code_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    calls = count_openings(monkeypatch)
    rows, blocked, tests = (tmp_path / name for name in ("rows.jsonl", "mine.txt", "test.txt"))
    lines = [json.dumps({"text": f"the text of number {n} has some words in it"}) for n in range(60)]
    rows.write_text("\n".join(lines))
    blocked.write_text("# mine\n" + "0" * 16 + "\n")
    tests.write_text("one two three four five six seven eight nine ten eleven twelve thirteen fourteen")
    more = ["data.source=custom", f"data.paths=[{rows}]", f"data.block_lists=[{blocked}]", f"data.test_files=[{tests}]"]
    settings = settings_of(tmp_path / "run", *more)
    opened(settings)
    opened(settings)
    assert len(calls) == 1
    access = None
    if change == "content":
        rows.write_text("\n".join([*lines, json.dumps({"text": "another"})]))
    elif change == "setting":
        settings = settings_of(tmp_path / "run", *more, "data.validation_share=0.4")
    elif change == "code":
        monkeypatch.setattr(opened_corpus, "code_and_libraries", lambda: "another version")
    elif change == "access":
        access = "registered"
    elif change == "block list":
        blocked.write_text("# mine\n" + "1" * 16 + "\n")
    elif change == "test file":
        tests.write_text(tests.read_text() + " fifteen")
    else:
        [facts] = (tmp_path / "run" / "prepared").glob("*.corpus.json")
        facts.write_text(facts.read_text()[:-9])
    open_once(settings.data, access, tmp_path / "run", Preparer())  # type: ignore[arg-type]
    assert len(calls) == 2


def test_files_that_read_others_beside_them_are_read_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, folder = count_openings(monkeypatch), tmp_path / "brat"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"patient {number} has gout")
        (folder / f"{number}.ann").write_text(
            "T1\tDisease 14 18\tgout\n" if number > 9 else "T1\tDisease 15 19\tgout\n"
        )
    settings = settings_of(tmp_path / "run", "data.source=brat", f"data.paths=[{folder}]", "data.skip_bad=true")
    keys = []
    for _ in range(2):
        keys.append(data_key(settings, opened(settings)))
        (folder / "29.ann").write_text("T1\tFinding 15 19\tgout\n")
    assert len(calls) == 2 and keys[0] != keys[1]


RECORDS: list[Record] = [
    Passage(
        "p", "g", "pubmed", "A\u2028text \ud800", "T", (Section("s", "L", None), Section("t")),
        Bibliography(2, 1999, "J", ("eng",), (Term("D1", "Review"),), (Term("D2", "Iron"), Term("D3", "Gout"))),
    ),
    Passage("q", "g", "custom", "bare"),
    Question("q", "g", "s", "why?", "no", ("a", "b"), ("yes", "no", "no"), "because", 2, "anatomy"),
    Annotated("a", "g", "s", "has gout", (Span(4, 8, "Disease", "gout"),)),
    Pair("c", "g", "s", "in", "out", "S", (("user", "hi"), ("assistant", "yes")), "thought", True),
]  # fmt: skip


def test_records_come_back_from_json_with_every_field(tmp_path: Path) -> None:
    path = tmp_path / "records"
    with path.open("wb") as stream:
        write_records(stream, RECORDS)
    with path.open("rb") as lines:
        back = list(read_records(lines))
    assert back == RECORDS
    assert [vars_of(each) for each in back] == [vars_of(each) for each in RECORDS]


def vars_of(record: Record) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def test_an_error_in_the_data_is_that_of_open_corpus_and_nothing_stays(tmp_path: Path, where: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good"}\n{"text": \n')
    settings = settings_of(tmp_path / "run", "data.source=custom", f"data.paths=[{path}]")
    with pytest.raises(DataError) as expected:
        open_corpus(settings.data)
    with pytest.raises(DataError) as caught, prepares_rows(settings.train) as preparer:
        opened(settings, preparer)
    assert caught.value.as_json() == expected.value.as_json()
    assert not (tmp_path / "run" / "prepared").exists()


def test_rows_written_where_the_records_are_are_those_of_this_process(tmp_path: Path, where: str) -> None:
    base, settings = make_base(), settings_of(tmp_path, "train.max_length=96", "train.packing=true")
    kind = text_rows(base, settings.train)
    write_row_file(list(open_corpus(settings.data).train), RowFile(tmp_path / "own", kind, "training", True, False), 1)
    expected = open_arrow_rows(tmp_path / "own")
    preparer = Preparer()
    corpus = opened(settings, preparer)
    assert isinstance(corpus.train, OpenedRecords)
    rows = Preparation(settings.train, "key", ["t"], preparer).rows(corpus.train, kind, "training")
    preparer.close()
    assert expected is not None and rows.digest == expected.digest and rows.report == expected.report


def test_one_digest_names_the_rows_of_both_splits(tmp_path: Path) -> None:
    kind = text_rows(make_base(), TrainSettings(max_length=96))
    rows = {}
    for name, count in (("many", 90), ("again", 90), ("few", 20)):
        write_row_file(passages(count), RowFile(tmp_path / name, kind, "training", False, False), 1)
        rows[name] = open_arrow_rows(tmp_path / name)
    digests = [
        SplitRows(rows[training], rows[validation]).digest()
        for training, validation in (("many", "few"), ("again", "few"), ("few", "few"), ("many", "again"))
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert SplitRows(rows["many"], rows["few"], "the key of a stream").digest() not in digests


def test_a_process_that_prepares_and_is_killed_stops_the_run_with_advice(tmp_path: Path) -> None:
    preparer = Preparer()
    assert preparer.ask(os.path.basename, "a/b") == "b"
    with pytest.raises(StoppedError, match=r"ended from outside \(signal 9\)") as caught:
        preparer.ask(signal.raise_signal, signal.SIGKILL)
    assert caught.value.exit_code == 75
    assert preparer.ask(os.path.basename, "a/b") == "b"  # the next request starts another
    preparer.close()


def write(path: Path) -> None:
    path.write_text("again")


def test_the_process_that_prepares_ends_with_the_run_that_is_killed(tmp_path: Path) -> None:
    def start() -> None:
        (tmp_path / "new").write_text(str(Preparer().ask(os.getpgid, 0)))
        (tmp_path / "new").rename(tmp_path / "id")
        time.sleep(60)

    run = fork(start, tmp_path / "error")
    until = time.monotonic() + 60
    while not (tmp_path / "id").exists() and time.monotonic() < until:
        time.sleep(0.05)
    preparing = int((tmp_path / "id").read_text())
    os.kill(preparing, 0)
    os.kill(run, signal.SIGKILL)
    wait(run)
    until = time.monotonic() + 20
    while is_alive(preparing) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(preparing)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_fork_that_is_killed_leaves_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "BLOCK_RECORDS", 16)
    base, parent = make_base(), os.getpid()
    kind = text_rows(base, TrainSettings(max_length=96))
    block = type(kind).block

    def killed(self: Any, records: Any) -> Any:
        if os.getpid() != parent and records[0].uid == "u48":
            os.kill(os.getpid(), signal.SIGKILL)
        return block(self, records)

    monkeypatch.setattr(type(kind), "block", killed)
    with pytest.raises(StoppedError, match="a process that tokenizes was ended"):
        write_row_file(passages(), RowFile(tmp_path / "rows", kind, "training", False, False), 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_74_and_leaves_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(token_files, "BLOCK_RECORDS", 16)
    kind = text_rows(make_base(), TrainSettings(max_length=96))
    block = type(kind).block

    def full(self: Any, records: Any) -> Any:
        if records[0].uid == "u32":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return block(self, records)

    monkeypatch.setattr(type(kind), "block", full)
    with pytest.raises(DiskError) as caught:
        write_row_file(passages(), RowFile(tmp_path / "rows", kind, "training", False, False), processes)
    assert caught.value.exit_code == 74 and not list(tmp_path.iterdir())


def test_of_several_processes_one_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    made, lock = tmp_path / "made", tmp_path / "prepared" / ".lock"

    def look() -> str | None:
        return made.read_text() if made.exists() else None

    def work(number: int) -> None:
        os.environ["LOCAL_RANK"] = str(number)

        def make() -> None:
            time.sleep(0.5)
            with (tmp_path / "makers").open("a") as makers:
                makers.write(f"{number}\n")
            made.write_text("rows")

        assert once_a_machine(lock, "the rows", look, make) == "rows"

    children = [fork(lambda number=number: work(number), tmp_path / f"error-{number}") for number in (2, 1, 0)]
    assert [wait(child) for child in children] == [0, 0, 0]
    assert (tmp_path / "makers").read_text() == "0\n"


def test_where_the_first_process_is_killed_another_goes_on_and_says_that_it_waited(tmp_path: Path) -> None:
    made, lock = tmp_path / "made", tmp_path / "prepared" / ".lock"

    def die() -> None:
        (tmp_path / "began").write_text("")
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    first = fork(lambda: once_a_machine(lock, "the rows", lambda: None, die), tmp_path / "error")
    until = time.monotonic() + 60
    while not (tmp_path / "began").exists() and time.monotonic() < until:
        time.sleep(0.01)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("lora_med.training.preparation.once_a_machine.waiting")
    logger.addHandler(handler)
    try:
        result = once_a_machine(
            lock, "the rows", lambda: made.read_text() if made.exists() else None, lambda: write(made)
        )
    finally:
        logger.removeHandler(handler)
    assert result == "again" and wait(first) == -signal.SIGKILL
    assert lines[0] == f"process 0 waits: process {first} of this machine prepares the rows"
    assert lines[1].startswith("process 0 goes on after")
