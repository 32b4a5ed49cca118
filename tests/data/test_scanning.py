"""Streamed corpora, file by file: the result of memory, one scan a file, and nothing of credentialed data cached."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as some

from lora_med.config.data_settings import DataSettings
from lora_med.data.corpus import open_corpus
from lora_med.data.outcome import ReadOptions
from lora_med.data.record import Record, Split
from lora_med.data.scanning import scan_cache
from lora_med.data.scanning.current_steps import states_of
from lora_med.data.scanning.scan_cache import scan_files
from lora_med.data.scanning.scan_files import Scan
from lora_med.data.scanning.scanned_corpus import ScannedReading
from lora_med.data.splitting.build_splits import Splits, read_splits, rules_of
from lora_med.data.splitting.leakage import Rules, decontaminate
from lora_med.data.splitting.scanned import RecordDigest
from lora_med.data.splitting.splits import split_of_group
from lora_med.errors import DataError
from lora_med.folders import PrivateFolder
from tests.data.test_leakage import changed, sentence
from tests.data.test_pubmed import article, deletion, write

OPTIONS = ReadOptions(streaming=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder and a folder for temporary files of the test's own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "cache" / "lora_med" / "scans"


def text(number: int, place: int = 0) -> str:
    words = sentence(number, 60)
    return f"<AbstractText>{changed(words, place) if place else words}</AbstractText>"


def corpus(folder: Path, files: int = 4, articles: int = 60) -> list[Path]:
    """Files in which some articles are versions, repeated, nearly repeated or deleted."""
    paths: list[Path] = []
    for file in range(files):
        parts = [article(100 * file + number, text(100 * file + number)) for number in range(articles)]
        parts += [article(100 * file + 70, text(100 * file)), article(100 * file + 71, text(100 * file + 1, 9))]
        parts += [article(100 * (file - 1) + 3, text(100 * file + 90)), deletion(100 * (file - 1) + 5)] if file else []
        paths.append(write(folder / f"pubmed26n{file + 1:04}.xml", *parts))
    return paths


def splits(paths: list[Path], *, streaming: bool, **changes: object) -> Splits:
    values = {"source": "pubmed", "paths": [str(path) for path in paths], "validation_share": 0.2, "test_share": 0.2}
    settings = DataSettings.model_validate(values | {"streaming": streaming} | changes)
    return read_splits(settings, rules_of(settings))


def outcome(found: Splits) -> tuple[object, ...]:
    records: dict[Split, list[Record]] = {split: list(held) for split, held in found.records.items()}
    return records, found.tally, found.decontamination.as_json(), {split: len(held) for split, held in records.items()}


def scanned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The names of the files that were read to scan them, since the last call."""
    lines = [record.getMessage() for record in caplog.records]
    names = [line.split()[1] for line in lines if line.startswith("scanned ")]
    caplog.clear()
    return names


def test_scanned_files_give_what_memory_gives(tmp_path: Path) -> None:
    paths = corpus(tmp_path)
    found = splits(paths, streaming=True)
    assert outcome(found) == outcome(splits(paths, streaming=False)) == outcome(found)
    assert found.tally.dropped == {"deleted": 3, "duplicate": 4, "superseded": 3}
    assert found.decontamination.moved
    assert [len(found.records[split]) for split in ("train", "validation", "test")] == [
        len(list(found.records[split])) for split in ("train", "validation", "test")
    ]


steps = some.lists(
    some.one_of(
        some.tuples(some.integers(1, 6), some.integers(0, 3), some.integers(0, 5)),
        some.tuples(some.just(0), some.integers(1, 6), some.just(0)),
    ),
    max_size=12,
)


@tried(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=some.lists(steps, min_size=1, max_size=3))
def test_any_versions_deletions_and_repeats_are_resolved_as_in_memory(
    files: list[list[tuple[int, int, int]]], tmp_path: Path
) -> None:
    paths = [
        write(
            tmp_path / f"pubmed26n000{number}.xml",
            article(9, text(9)),
            *(
                article(pmid, text(content) if content else "", version=value) if pmid else deletion(value)
                for pmid, value, content in file
            ),
        )
        for number, file in enumerate(files)
    ]
    here: list[object] = []
    for streaming in (False, True):
        try:
            here.append(outcome(splits(paths, streaming=streaming)))
        except DataError as error:
            here.append(error.what)
    assert here[0] == here[1]
    scratch = PrivateFolder("lora-med-test")
    scans = [Scan(file.scan) for file in scan_files("pubmed", paths, OPTIONS, Rules(), scratch, caches=False)]
    in_memory = states_of(scans, scratch.path / "none", held=1000)
    on_disk = states_of(scans, scratch.path / "steps", held=0)
    assert all(np.array_equal(one, other) for one, other in zip(in_memory, on_disk, strict=True))


def test_each_file_is_scanned_once_and_a_new_one_alone(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    paths = corpus(tmp_path, files=5)
    splits(paths[:4], streaming=True)
    assert scanned(caplog) == [path.name for path in paths[:4]]
    assert outcome(splits(paths[:4], streaming=True)) == outcome(splits(paths[:4], streaming=False))
    assert scanned(caplog) == []
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    paths = [path.rename(moved / path.name) for path in paths]
    assert outcome(splits(paths, streaming=True)) == outcome(splits(paths, streaming=False))
    assert scanned(caplog) == ["pubmed26n0005.xml"]
    assert {path.stat().st_mode & 0o777 for path in cache.iterdir()} == {0o600}
    assert (len(list(cache.iterdir())), cache.stat().st_mode & 0o777) == (5, 0o700)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_other_settings_a_changed_file_and_a_damaged_scan_are_scanned_again(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    paths = corpus(tmp_path, files=2)
    splits(paths, streaming=True)
    assert len(scanned(caplog)) == 2
    for again in ({"keep_retracted": True}, {"near_duplicate_similarity": 0.0}, {"block_lists": []}):
        splits(paths, streaming=True, **again)
        assert len(scanned(caplog)) == 2
    splits(paths, streaming=True, near_duplicate_similarity=0.9, validation_share=0.1)
    assert scanned(caplog) == []
    write(paths[1], article(1, text(1)), article(2, text(2)))
    splits(paths, streaming=True)
    assert scanned(caplog) == [paths[1].name]
    for scan in cache.iterdir():
        os.truncate(scan, scan.stat().st_size // 2)
    assert outcome(splits(paths, streaming=True)) == outcome(splits(paths, streaming=False))
    assert len(scanned(caplog)) == 2


KILLED = """
import logging, os, signal, sys
from lora_med.config.data_settings import DataSettings
from lora_med.data.corpus import open_corpus
class Stop(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        if record.getMessage().startswith("scanned") and f"({sys.argv[1]} of" in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)
logging.basicConfig(level=logging.INFO, handlers=[Stop()])
print(len(open_corpus(DataSettings(source="pubmed", paths=sys.argv[2:], streaming=True)).train))
"""


def test_after_a_kill_only_the_files_that_were_not_scanned_are_read(tmp_path: Path) -> None:
    def run(stop: int) -> tuple[int, list[str]]:
        command = [sys.executable, "-c", KILLED, str(stop), *map(str, paths)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        return result.returncode, result.stdout.splitlines()

    paths = corpus(tmp_path, files=5)
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path(__file__).parents[2])}
    status, lines = run(3)
    assert (status, lines) == (-signal.SIGKILL, [f"scanned {paths[n].name} ({n + 1} of 5 files)" for n in range(3)])
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    status, lines = run(0)
    assert status == 0
    assert lines[:3] == [f"scanned {paths[n].name} ({n + 1} of 5 files)" for n in (3, 4)] + [
        "3 of 5 files were scanned before"
    ]
    data = DataSettings(source="pubmed", paths=[str(path) for path in paths])
    assert lines[-1] == str(len(open_corpus(data).train))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_of_credentialed_data_no_scan_stays(tmp_path: Path, cache: Path) -> None:
    data = DataSettings(source="pubmed", paths=[str(path) for path in corpus(tmp_path)], streaming=True)
    found = open_corpus(data, access="credentialed")
    assert len(found.train) == len(list(found.train))
    assert all(record.uid.startswith("sha256:") for record in found.train)
    assert not cache.exists() and list((tmp_path / "tmp").iterdir()) == []


def test_a_bad_file_is_refused_as_in_memory_or_skipped_and_counted_and_its_scan_is_not_cached(
    tmp_path: Path, cache: Path
) -> None:
    paths = corpus(tmp_path, files=3)
    paths[1].write_text(paths[1].read_text()[:-500])
    errors: list[DataError] = []
    for streaming in (False, True):
        with pytest.raises(DataError) as caught:
            splits(paths, streaming=streaming)
        errors.append(caught.value)
    assert errors[0].as_json() == errors[1].as_json() and str(paths[1]) in str(errors[1])
    assert len(list(cache.iterdir())) == 2
    skipped = splits(paths, streaming=True, skip_bad=True)
    assert outcome(skipped) == outcome(splits(paths, streaming=False, skip_bad=True))
    assert skipped.tally.dropped["bad"] == 1


def test_files_without_a_record_are_an_error(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.xml", article(1, "")), write(tmp_path / "b.xml", article(2, ""))]
    errors: list[DataError] = []
    for streaming in (False, True):
        with pytest.raises(DataError, match="no_abstract 2") as caught:
            splits(paths, streaming=streaming)
        errors.append(caught.value)
    assert errors[0].as_json() == errors[1].as_json()


def test_a_file_that_changes_between_passes_is_named(tmp_path: Path) -> None:
    paths = corpus(tmp_path, files=2)
    found = splits(paths, streaming=True)
    write(paths[1], article(1, text(1)))
    with pytest.raises(DataError, match="the file changed while it was read"):
        list(found.records["train"])


def test_several_processes_scan_as_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    paths = corpus(tmp_path)
    one = outcome(splits(paths, streaming=False))
    monkeypatch.setattr(scan_cache, "LEAST_BYTES", 0)
    monkeypatch.setattr(scan_cache, "available_processes", lambda: 3)
    assert outcome(splits(paths, streaming=True)) == one
    assert scanned(caplog) == [path.name for path in paths]


@pytest.mark.slow
def test_thirty_thousand_articles_give_the_same_splits_in_memory_scanned_and_on_disk(tmp_path: Path) -> None:
    paths = [
        write(
            tmp_path / f"pubmed26n{file:04}.xml",
            *(article(number, text(number - number % 20 // 19, 9 * (number % 20 // 19))) for number in range(*ends)),
            *(article(ends[0] + other, text(ends[1] + other), version=2) for other in range(0, 900, 3)),
            deletion(*range(max(1, ends[0] - 2000), ends[0], 40)),
            article(ends[0] - 1, text(5)) if file else "",
        )
        for file, ends in enumerate([(1, 10_000), (10_000, 20_000), (20_000, 30_001)])
    ]
    in_memory = splits(paths, streaming=False)
    found = splits(paths, streaming=True)
    assert outcome(found) == outcome(in_memory)
    assert in_memory.decontamination.clusters > 1000 and len(in_memory.decontamination.moved) > 300
    assert found.tally.kept > 28_000 and {"superseded", "deleted", "duplicate"} == found.tally.dropped.keys()
    scratch = PrivateFolder("lora-med-test")
    rules = Rules("error", 0.8)
    scans = [Scan(file.scan) for file in scan_files("pubmed", paths, OPTIONS, rules, scratch, caches=False)]
    states = states_of(scans, scratch.path / "none", held=10**6)
    on_disk = states_of(scans, scratch.path / "steps", held=0)
    assert all(np.array_equal(one, other) for one, other in zip(states, on_disk, strict=True))
    reading = ScannedReading("pubmed", paths, OPTIONS, rules, skip_bad=False, access=None, held=0)
    assigned: list[tuple[int, Split, RecordDigest]] = [
        (0, split_of_group(record.group, 42, 0.2, 0.2), record) for record in reading.digests()
    ]
    for held in (0, 10**6):
        separation = decontaminate(assigned, rules, frozenset(), held=held)
        assert dict(separation.moved) == dict(in_memory.decontamination.moved)
        assert (separation.sizes, separation.clusters) == (
            in_memory.decontamination.sizes,
            in_memory.decontamination.clusters,
        )
