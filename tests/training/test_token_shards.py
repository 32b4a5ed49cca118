"""Token shards give what tokenizing the stream gives, are written once for each file, and stay only where they may."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.config.data_settings import DataSettings
from lora_med.config.schema import TrainSettings
from lora_med.data.corpus import Stream, open_corpus
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows import token_shards
from lora_med.training.rows.batches import Stream as RowStream
from lora_med.training.rows.documents import DocumentStream, read_documents
from lora_med.training.rows.token_cache import delete_cached
from lora_med.training.rows.token_shards import ShardedDocuments, Tokenizing
from tests.data.test_pubmed import article, write
from tests.data.test_scanning import corpus
from tests.tiny import make_tokenizer
from tests.training.support import make_base

LENGTH = 48  # shorter than the texts: they are cut


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def streamed(paths: list[Path]) -> Stream:
    data = DataSettings(source="pubmed", paths=[str(path) for path in paths], streaming=True, validation_share=0.2)
    records = open_corpus(data).train
    assert isinstance(records, Stream)
    return records


def both(records: Stream, folder: Path, **changes: object) -> tuple[ShardedDocuments, DocumentStream]:
    how = replace(Tokenizing("text", make_tokenizer(), LENGTH, "chunk_by_section", "last", "open"), **changes)  # type: ignore[arg-type]
    stream = DocumentStream(records, "text", how.tokenizer, how.max_length, how.too_long)
    return ShardedDocuments(records.parts, how, folder, ["tokenizer"]), stream


def bare(documents: list[Tokens]) -> list[tuple[str, list[int], list[bool]]]:
    return [(document.uid, document.input_ids, document.trained) for document in documents]


def shards(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "prepared").glob("*.arrow")}


def test_shards_give_the_documents_and_rows_of_the_stream(tmp_path: Path) -> None:
    sharded, stream = both(streamed(corpus(tmp_path)), tmp_path / "run")
    assert bare(list(sharded)) == bare(list(stream)) == bare(list(sharded))
    rows = [iter(RowStream(documents, LENGTH, packing=True)) for documents in (sharded, stream)]
    assert all(next(rows[0]) == next(rows[1]) for _ in range(300))  # more than one pass
    assert len(shards(tmp_path / "run")) == 4


def test_rows_that_are_too_long_are_left_out_and_reported_as_of_the_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def reported() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return [line for line in lines if line.startswith("left out of the stream")]

    sharded, stream = both(streamed(corpus(tmp_path)), tmp_path / "run", too_long="drop")
    expected = bare(list(stream))
    lines = reported()
    assert len(lines) > 1
    for _ in range(2):
        assert bare(list(sharded)) == expected
        assert reported() == lines


def test_a_new_file_costs_its_own_tokenizing_although_it_supersedes_earlier_records(tmp_path: Path) -> None:
    paths, run = corpus(tmp_path), tmp_path / "run"
    list(both(streamed(paths), run)[0])
    before = shards(run)
    paths.append(write(tmp_path / "pubmed26n0009.xml", *(article(number) for number in range(3, 300, 7))))
    sharded, stream = both(streamed(paths), run)
    assert bare(list(sharded)) == bare(list(stream))
    after = shards(run)
    assert len(after) == 5 and before.items() <= after.items()
    list(both(streamed(paths), run, max_length=32)[0])
    assert len(shards(run)) == 5 and not shards(run).keys() & after.keys()  # of other settings none stays


def test_after_an_interruption_only_the_missing_shards_are_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sharded, stream = both(streamed(corpus(tmp_path)), run)
    begun = iter(sharded)
    first = next(begun)
    begun.close()  # type: ignore[attr-defined]
    assert len(shards(run)) == 1
    [complete] = (run / "prepared").glob("*.arrow")
    before = shards(run)
    assert bare(list(sharded)) == bare(list(stream)) and bare([first]) == bare([next(iter(stream))])
    assert before.items() <= shards(run).items()
    os.truncate(complete, complete.stat().st_size // 2)
    assert bare(list(sharded)) == bare(list(stream))


def test_several_processes_write_the_shards_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = streamed(corpus(tmp_path))
    sharded, stream = both(records, tmp_path / "one")
    assert bare(list(sharded)) == bare(list(stream))
    monkeypatch.setattr(token_shards, "LEAST_BYTES", 0)
    monkeypatch.setattr(token_shards, "available_processes", lambda: 2)
    assert bare(list(both(records, tmp_path / "several")[0])) == bare(list(stream))
    one, several = (sorted((tmp_path / name / "prepared").iterdir()) for name in ("one", "several"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in several]


def test_a_run_that_keeps_no_tokens_writes_no_shard_and_deletes_those_of_earlier_runs(tmp_path: Path) -> None:
    records, base = streamed(corpus(tmp_path)), make_base()
    train = TrainSettings(output_dir=str(tmp_path / "run"), max_length=LENGTH)
    for key in (None, "key"):
        checked = read_documents(records, {"pubmed": "text"}, base, train, access="open", key=key)
        assert isinstance(checked.documents, DocumentStream if key is None else ShardedDocuments)
        assert checked.streamed and len(list(checked.documents)) > 100
        assert bool(shards(tmp_path / "run")) == (key is not None)
    delete_cached(tmp_path / "run")
    assert not (tmp_path / "run" / "prepared").exists()


def test_shards_of_credentialed_data_that_the_settings_keep_are_the_owner_s_alone(tmp_path: Path) -> None:
    list(both(streamed(corpus(tmp_path)), tmp_path / "run", access="credentialed")[0])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "run" / "prepared").iterdir()} == {0o600}
