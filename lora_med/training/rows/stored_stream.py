"""A stream of documents that is tokenized at its first pass and read from token shards at every later one.

The machine's first process stores the documents while it takes them, a shard for every 20,000. A pass reads the shards
that are there and tokenizes only what follows them: all that did not fit on the disk, or what an interrupted pass had
not stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lora_med.files import write_atomic
from lora_med.processes.launch import local_rank
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.prepared_names import ROWS
from lora_med.training.rows.token_shards import (
    SUFFIX,
    LeftOut,
    ShardRow,
    TooLongRow,
    is_complete,
    read_shard,
    row_of,
    shard_bytes,
    shard_writer,
    with_left_out,
)

SHARD_ROWS = 20_000
END = ".end.arrow"  # empty: there is no document after the last shard


class Rows(Protocol):
    """A stream that can be read again at every pass."""

    @property
    def max_length(self) -> int:
        """The most tokens of a document."""
        ...

    @property
    def access(self) -> str:
        """The class of the data."""
        ...

    def rows(self) -> Iterator[Tokens | TooLongRow]:
        """The documents, and in their place those that are too long."""
        ...


@dataclass(frozen=True)
class StoredStream:
    """The documents of `stream`, from shards at `path` (without a suffix) as far as there are any.

    Once all shards in the folder take `most_bytes`, no more are begun.
    """

    stream: Rows
    path: Path
    most_bytes: float

    def __iter__(self) -> Iterator[Tokens]:
        """The documents, in the order of the stream."""
        return with_left_out(self._rows(), LeftOut(self.stream.max_length, self.stream.access))

    def _shard(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}-{number}{SUFFIX}")

    @property
    def _end(self) -> Path:
        return self.path.with_name(self.path.name + END)

    def _rows(self) -> Iterator[Tokens | TooLongRow]:
        self._delete_others()
        stored = shards = 0
        while is_complete(self._shard(shards)):
            for row in read_shard(self._shard(shards)):
                stored += 1
                yield row
            shards += 1
        if self._end.is_file():
            return
        rest = itertools.islice(self.stream.rows(), stored, None)
        yield from rest if local_rank() else self._storing(rest, shards)

    def _delete_others(self) -> None:
        """Delete the shards of other settings or data; the machine's first process alone."""
        for shard in self.path.parent.glob(f"*{SUFFIX}") if local_rank() == 0 else ():
            if not shard.name.startswith(self.path.name) and not shard.name.endswith(ROWS):
                shard.unlink(missing_ok=True)

    def _storing(self, rows: Iterator[Tokens | TooLongRow], shards: int) -> Iterator[Tokens | TooLongRow]:
        """The rows, each stored before it is given."""
        for number in itertools.count(shards):
            if self._folder_is_full():
                yield from rows
                return
            block = itertools.islice(rows, SHARD_ROWS)
            first = next(block, None)
            if first is None:
                write_atomic(self._end, b"", private=True)
                return
            with shard_writer(self._shard(number), self.stream.access) as add:
                for row in itertools.chain([first], block):
                    _add(add, row)
                    yield row

    def _folder_is_full(self) -> bool:
        return shard_bytes(self.path.parent) >= self.most_bytes


def _add(add: Callable[[ShardRow], None], row: Tokens | TooLongRow) -> None:
    add((0, row.uid, None, [], row.length) if isinstance(row, TooLongRow) else row_of(0, row))
