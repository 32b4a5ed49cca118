"""Token shards: the documents of a streamed corpus, one Arrow file for each input file, in the run's own folder.

A shard holds every record of its file, tokenized, whatever split it is in. So a new file costs its own tokenizing, even
if it changes which records of earlier files are current, and a killed run goes on with the next file. Shards are
mapped into memory and read in order; rows are packed from them at each pass. Several processes write them, a few files
ahead of the pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lora_med.data.record import SHOWN_CLASSES, Record, shown_uid
from lora_med.data.scanning.record_streams import FilePart
from lora_med.data.scanning.workers import available_processes, in_order
from lora_med.files import atomic_stream
from lora_med.processes.launch import rank
from lora_med.prompts.fit import Refused, chunk, fit_stream
from lora_med.prompts.render import render_stream
from lora_med.prompts.row import AssistantTurns, Row, TooLong
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.examined import from_runs, trained_runs
from lora_med.training.preparation.once_a_machine import once_a_machine
from lora_med.training.preparation.prepared_names import FOLDER, LOCK, ROWS, code_and_libraries

SUFFIX = ".arrow"
BATCH = 1024
MOST_PROCESSES = 2  # each loads the tokenizer's library
LEAST_BYTES = 20_000_000  # of files; below, starting processes takes longer than tokenizing
SCHEMA = pa.schema(
    {
        "step": pa.int64(),
        "uid": pa.string(),
        "ids": pa.list_(pa.int32()),
        "runs": pa.list_(pa.int32()),  # tokens that are not trained, trained, not trained, ...
        "left_out": pa.int32(),  # the length of a row that is too long; it has no ids
    }
)
ShardRow = tuple[int, str, Any, list[int], int]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokenizing:
    """How records become documents no longer than `max_length`; see `DocumentStream`."""

    template: str
    tokenizer: Any = field(repr=False)
    max_length: int
    too_long: TooLong | None
    assistant_turns: AssistantTurns
    access: str


@dataclass(frozen=True)
class TooLongRow:
    """A row that is too long and may not be cut."""

    uid: str
    length: int


class LeftOut:
    """Counts the rows that are left out of a stream; logs the first, second, fourth and so on."""

    def __init__(self, max_length: int, access: str) -> None:
        self._max_length, self._access, self._count = max_length, access, 0

    def add(self, uid: str, length: int) -> None:
        """Count one more."""
        self._count += 1
        if self._count.bit_count() == 1:
            logger.warning(
                "left out of the stream: %d longer than %d so far, now uid %s of %d tokens",
                self._count,
                self._max_length,
                shown_uid(uid, self._access),
                length,
            )


def fitted(document: Tokens, max_length: int) -> list[Tokens] | None:
    """The document, or its chunks; None if it is too long and may not be cut."""
    if len(document.input_ids) <= max_length:
        return [document]
    if document.running and document.too_long == "chunk_by_section":
        return chunk(document, max_length)
    return None


@dataclass(frozen=True)
class _Job:
    part: FilePart
    tokenizing: Tokenizing
    shard: Path
    most_bytes: float


@dataclass(frozen=True)
class ShardedDocuments:
    """The documents that a `DocumentStream` of the parts' records gives, from shards in `folder`.

    `marks` identify the tokenizer and its template. Once the shards take `most_bytes`, no more are begun: files without
    one are tokenized at each pass.
    """

    parts: Sequence[FilePart]
    tokenizing: Tokenizing
    folder: Path
    marks: Sequence[str]
    most_bytes: float = math.inf

    def _jobs(self) -> list[_Job]:
        how = self.tokenizing
        common = [how.template, how.max_length, how.too_long, how.assistant_turns, how.access, *self.marks]
        jobs: list[_Job] = []
        for part in self.parts:
            about = [part.source, part.sha256, part.options.keep_retracted, *common, *code_and_libraries()]
            name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
            jobs.append(_Job(part, how, self.folder / FOLDER / f"{name}{SUFFIX}", self.most_bytes))
        return jobs

    def __iter__(self) -> Iterator[Tokens]:
        """The documents, in the order of the files; shards that are missing are written first, a few files ahead."""
        jobs = [job for job in self._jobs() if job.part.chosen.any()]
        self._delete_others(jobs)
        missing = sum(job.part.path.stat().st_size for job in jobs if not is_complete(job.shard))
        processes = min(MOST_PROCESSES, available_processes()) if missing >= LEAST_BYTES else 1
        left_out = LeftOut(self.tokenizing.max_length, self.tokenizing.access)
        for job, shard in zip(jobs, in_order(_make_shard, jobs, processes), strict=True):
            rows = _tokenized(job) if shard is None else read_shard(shard, job.part.chosen)
            yield from with_left_out(rows, left_out)

    def _delete_others(self, jobs: Sequence[_Job]) -> None:
        """Delete the shards of other settings or earlier files; rank 0 alone."""
        own = {job.shard for job in jobs}
        for shard in (self.folder / FOLDER).glob(f"*{SUFFIX}") if rank() == 0 else ():
            if shard not in own and not shard.name.endswith(ROWS):
                shard.unlink(missing_ok=True)


def is_complete(shard: Path) -> bool:
    """Whether the shard can be read."""
    try:
        with pa.memory_map(str(shard)) as file:
            return pa.ipc.open_file(file).schema == SCHEMA
    except (OSError, pa.ArrowInvalid):
        return False


def shard_bytes(folder: Path) -> int:
    """What the token shards in a folder take."""
    return sum(path.stat().st_size for path in folder.glob(f"*{SUFFIX}") if not path.name.endswith(ROWS))


def _make_shard(job: _Job) -> Path | None:
    """The shard of a file, written by one process of this machine unless it is there; None where no more may be."""
    if is_complete(job.shard):
        return job.shard
    if shard_bytes(job.shard.parent) >= job.most_bytes:
        return None
    lock = job.shard.with_name(f".{job.shard.name}{LOCK}")

    def look() -> Path | None:
        return job.shard if is_complete(job.shard) else None

    try:
        return once_a_machine(lock, f"the tokens of {job.part.path.name}", look, lambda: _write_shard(job))
    finally:
        lock.unlink(missing_ok=True)


def _write_shard(job: _Job) -> None:
    with shard_writer(job.shard, job.tokenizing.access) as add:
        for row in _rows(job):
            add(row)


@contextlib.contextmanager
def shard_writer(shard: Path, access: str) -> Iterator[Callable[[ShardRow], None]]:
    """A function that adds a row to a shard, which is there when the block ends without an error."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    private = access not in SHOWN_CLASSES
    with atomic_stream(shard, private=private) as stream, pa.ipc.new_file(stream, SCHEMA) as writer:

        def add(row: ShardRow) -> None:
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
            if len(columns["step"]) == BATCH:
                _write(writer, columns)

        yield add
        _write(writer, columns)


def _write(writer: Any, columns: dict[str, list[Any]]) -> None:
    arrays = [pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()]
    writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
    for values in columns.values():
        values.clear()


def _rows(job: _Job) -> Iterator[ShardRow]:
    how = job.tokenizing
    steps: list[int] = []  # of the rows that are rendered and not yet tokenized

    def rendered() -> Iterator[Row]:
        current = 0

        def records() -> Iterator[Record]:
            nonlocal current
            for current, record in job.part.numbered():  # noqa: B007 - read below
                yield record

        for row in render_stream(records(), how.template, how.too_long, how.assistant_turns):
            steps.append(current)
            yield row

    documents = fit_stream(rendered(), how.tokenizer, how.max_length, Refused())
    for document in documents:
        step = steps.pop(0)
        parts = fitted(document, how.max_length)
        for part in parts or ():
            yield row_of(step, part)
        if parts is None:
            yield step, document.uid, None, [], len(document.input_ids)


def row_of(step: int, document: Tokens) -> ShardRow:
    """A document as a shard holds it."""
    return step, document.uid, np.asarray(document.input_ids, np.int32), trained_runs(document.trained), 0


def _tokenized(job: _Job) -> Iterator[Tokens | TooLongRow]:
    """The documents of a file that has no shard."""
    chosen = job.part.chosen
    for step, uid, ids, runs, length in _rows(job):
        if chosen[step]:
            yield TooLongRow(uid, length) if length else Tokens(uid, ids.tolist(), from_runs(runs))


def read_shard(shard: Path, chosen: NDArray[np.bool_] | None = None) -> Iterator[Tokens | TooLongRow]:
    """The documents of a shard, of the steps that are chosen or of all."""
    with pa.memory_map(str(shard)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            rows = reader.get_batch(number)
            if chosen is not None:
                rows = rows.take(pa.array(np.flatnonzero(chosen[rows.column("step").to_numpy()])))
            ids, runs = rows.column("ids"), rows.column("runs")
            offsets, run_offsets = ids.offsets.to_pylist(), runs.offsets.to_pylist()
            values, lengths = ids.values.to_numpy(), runs.values.to_pylist()
            others = rows.column("left_out").to_pylist()
            for index, uid in enumerate(rows.column("uid").to_pylist()):
                if others[index]:
                    yield TooLongRow(uid, others[index])
                    continue
                trained = from_runs(lengths[run_offsets[index] : run_offsets[index + 1]])
                yield Tokens(uid, values[offsets[index] : offsets[index + 1]].tolist(), trained)


def with_left_out(rows: Iterable[Tokens | TooLongRow], left_out: LeftOut) -> Iterator[Tokens]:
    """The documents; rows that are too long are counted."""
    for row in rows:
        if isinstance(row, TooLongRow):
            left_out.add(row.uid, row.length)
        else:
            yield row
