"""Token shards: the documents of a streamed corpus, one Arrow file for each input file, in the run's own folder.

A shard holds every record of its file, tokenized, whatever split it is in. So a new file costs its own tokenizing, even
if it changes which records of earlier files are current, and a killed run goes on with the next file. Shards are
mapped into memory and read in order; rows are packed from them at each pass. Several processes write them, a few files
ahead of the pass.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lora_med.data.record import SHOWN_CLASSES, Record, shown_uid
from lora_med.data.scanning.record_streams import FilePart
from lora_med.data.scanning.workers import available_processes, in_order
from lora_med.files import atomic_stream
from lora_med.prompts.fit import Refused, chunk, fit_stream
from lora_med.prompts.render import render_stream
from lora_med.prompts.row import AssistantTurns, Row, TooLong
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.run import rank
from lora_med.training.preparation.prepared_names import FOLDER, ROWS, code_and_libraries

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


@dataclass(frozen=True)
class ShardedDocuments:
    """The documents that a `DocumentStream` of the parts' records gives, from shards in `folder`.

    `marks` identify the tokenizer and its template.
    """

    parts: Sequence[FilePart]
    tokenizing: Tokenizing
    folder: Path
    marks: Sequence[str]

    def _jobs(self) -> list[_Job]:
        how = self.tokenizing
        common = [how.template, how.max_length, how.too_long, how.assistant_turns, how.access, *self.marks]
        jobs: list[_Job] = []
        for part in self.parts:
            about = [part.source, part.sha256, part.options.keep_retracted, *common, *code_and_libraries()]
            name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
            jobs.append(_Job(part, how, self.folder / FOLDER / f"{name}{SUFFIX}"))
        return jobs

    def __iter__(self) -> Iterator[Tokens]:
        """The documents, in the order of the files; shards that are missing are written first, a few files ahead."""
        jobs = [job for job in self._jobs() if job.part.chosen.any()]
        self._delete_others(jobs)
        missing = sum(job.part.path.stat().st_size for job in jobs if not is_complete(job.shard))
        processes = min(MOST_PROCESSES, available_processes()) if missing >= LEAST_BYTES else 1
        left_out = LeftOut(self.tokenizing.max_length, self.tokenizing.access)
        for job, shard in zip(jobs, in_order(_make_shard, jobs, processes), strict=True):
            yield from _documents(shard, job.part, left_out)

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


def _make_shard(job: _Job) -> Path:
    """The shard of a file, written unless it is there."""
    if not is_complete(job.shard):
        private = job.tokenizing.access not in SHOWN_CLASSES
        with atomic_stream(job.shard, private=private) as stream, pa.ipc.new_file(stream, SCHEMA) as writer:
            columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
            for row in _rows(job):
                for values, value in zip(columns.values(), row, strict=True):
                    values.append(value)
                if len(columns["step"]) == BATCH:
                    _write(writer, columns)
            _write(writer, columns)
    return job.shard


def _write(writer: Any, columns: dict[str, list[Any]]) -> None:
    arrays = [pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()]
    writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
    for values in columns.values():
        values.clear()


def _rows(job: _Job) -> Iterator[tuple[int, str, Any, list[int], int]]:
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
            yield step, part.uid, np.asarray(part.input_ids, np.int32), _runs(part), 0
        if parts is None:
            yield step, document.uid, None, [], len(document.input_ids)


def _runs(document: Tokens) -> list[int]:
    runs = [len(list(run)) for _, run in groupby(document.trained)]
    return [0, *runs] if document.trained[:1] == [True] else runs


def _documents(shard: Path, part: FilePart, left_out: LeftOut) -> Iterator[Tokens]:
    """The documents of the part's records."""
    chosen = part.chosen
    with pa.memory_map(str(shard)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            own = np.flatnonzero(chosen[batch.column("step").to_numpy()])
            rows = batch.take(pa.array(own))
            ids, runs = rows.column("ids"), rows.column("runs")
            offsets, run_offsets = ids.offsets.to_pylist(), runs.offsets.to_pylist()
            values, lengths = ids.values.to_numpy(), runs.values.to_pylist()
            others = rows.column("left_out").to_pylist()
            for index, uid in enumerate(rows.column("uid").to_pylist()):
                if others[index]:
                    left_out.add(uid, others[index])
                    continue
                trained: list[bool] = []
                for turn, length in enumerate(lengths[run_offsets[index] : run_offsets[index + 1]]):
                    trained += [turn % 2 == 1] * length
                yield Tokens(uid, values[offsets[index] : offsets[index + 1]].tolist(), trained)
