"""A stream is tokenized at its first pass, read from disk at later ones, and tokenized again where the disk is full."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lora_med.data.record import Pair
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows import stored_stream
from lora_med.training.rows.batches import Stream as RowStream
from lora_med.training.rows.documents import DocumentStream
from lora_med.training.rows.stored_stream import StoredStream
from tests.tiny import make_tokenizer
from tests.training.test_token_shards import both, corpus, shards, streamed

COUNT, SHARD = 50, 16


@pytest.fixture(autouse=True)
def _small_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stored_stream, "SHARD_ROWS", SHARD)


@dataclass
class Records:
    """Pairs, of which every seventh has an answer too long; counts how many were read."""

    read: int = 0
    passes: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[Pair]:
        for n in range(COUNT):
            self.read += 1
            yield Pair(f"u{n}", f"g{n}", "custom", f"prompt {n}", "word " * (40 if n % 7 == 0 else n % 5 + 1))


def stream(records: Records) -> DocumentStream:
    return DocumentStream(records, "pair_chat", make_tokenizer(), 128, None)


def stored(records: Records, folder: Path, most_bytes: float = 1e9) -> StoredStream:
    return StoredStream(stream(records), folder / "prepared" / "name", most_bytes)


def read_by(records: Records, documents: StoredStream) -> tuple[list[Tokens], int]:
    """The documents of one pass, and how many records it read."""
    before = records.read
    found = [Tokens(each.uid, each.input_ids, each.trained) for each in documents]
    return found, records.read - before


def expected() -> list[Tokens]:
    return [Tokens(each.uid, each.input_ids, each.trained) for each in stream(Records())]


def test_later_passes_read_no_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = Records()
    documents = stored(records, tmp_path)
    assert read_by(records, documents) == (expected(), COUNT)
    first = [line for line in caplog.messages if line.startswith("left out of the stream")]
    caplog.clear()
    assert read_by(records, documents) == (expected(), 0)
    assert [line for line in caplog.messages if line.startswith("left out of the stream")] == first != []
    again = Records()
    assert read_by(again, stored(again, tmp_path)) == (expected(), 0)  # another start
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "prepared").glob("name.end*")} == {0o600}


def test_rows_packed_from_a_stored_stream_are_those_of_the_stream(tmp_path: Path) -> None:
    rows = [RowStream(each, 128, packing=True) for each in (stored(Records(), tmp_path), stream(Records()))]
    pairs = itertools.islice(zip(*rows, strict=True), 90)  # more than two passes
    assert all(ours == theirs for ours, theirs in pairs)


def test_after_an_interruption_the_documents_are_those_of_the_stream(tmp_path: Path) -> None:
    records = Records()
    begun = iter(stored(records, tmp_path))
    taken = list(itertools.islice(begun, 20))
    begun.close()  # type: ignore[attr-defined]
    assert len(taken) == 20 and len(list((tmp_path / "prepared").iterdir())) == 1  # the shard that was complete
    again = Records()
    assert read_by(again, stored(again, tmp_path)) == (expected(), COUNT)
    assert read_by(again, stored(again, tmp_path)) == (expected(), 0)


def test_what_does_not_fit_on_the_disk_is_tokenized_at_each_pass(tmp_path: Path) -> None:
    records = Records()
    documents = stored(records, tmp_path, most_bytes=1)
    for _ in range(2):
        assert read_by(records, documents) == (expected(), COUNT)
    assert len(list((tmp_path / "prepared").iterdir())) == 1
    nothing = Records()
    assert read_by(nothing, stored(nothing, tmp_path / "none", most_bytes=0)) == (expected(), COUNT)
    assert not (tmp_path / "none").exists()


def test_of_several_processes_the_first_alone_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    records = Records()
    assert read_by(records, stored(records, tmp_path)) == (expected(), COUNT)
    assert not (tmp_path / "prepared").exists()


def test_shards_of_files_stop_at_their_limit_and_the_documents_are_the_same(tmp_path: Path) -> None:
    records = streamed(corpus(tmp_path))
    sharded, plain = both(records, tmp_path / "run")
    limited = type(sharded)(sharded.parts, sharded.tokenizing, tmp_path / "limited", sharded.marks, most_bytes=1)
    for _ in range(2):
        ours = [(each.uid, each.input_ids, each.trained) for each in limited]
        assert ours == [(each.uid, each.input_ids, each.trained) for each in plain]
    assert len(shards(tmp_path / "limited")) == 1 < len(list(corpus(tmp_path)))
