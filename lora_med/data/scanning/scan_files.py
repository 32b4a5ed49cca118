"""The scan of one file: every step of reading it, without texts, as an Arrow file.

A record is its uid, group, content digest, MinHash signature, and whether a block-list or test file forbids it: about
600 bytes. None of the text can be read from it. A drop is its reason and, where it is bad, its error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lora_med.data.outcome import Drop, Outcome, PartDrop
from lora_med.data.record import Annotated, Pair, Passage, Question, asked_of, content, digest
from lora_med.data.scanning.file_steps import Deletion, Step
from lora_med.data.splitting.leakage import Rules, forbidden_reason
from lora_med.data.splitting.near_duplicates import PERMUTATIONS, signatures
from lora_med.data.splitting.scanned import RecordDigest
from lora_med.errors import DataError

KINDS = (Passage, Question, Annotated, Pair)
FORBIDDEN = (None, "blocked", "test_overlap")
RECORD, DROP, DELETION = range(3)
NO_KEY = -1  # of a step that is no entry
LARGEST_KEY, LARGEST_VERSION = 1 << 62, (1 << 31) - 1
BATCH = 4096
SCHEMA = pa.schema(
    {
        "step": pa.uint8(),
        "key": pa.int64(),
        "version": pa.int32(),
        "content": pa.uint64(),
        "uid": pa.string(),
        "group": pa.string(),
        "source": pa.string(),
        "kind": pa.uint8(),
        "turns": pa.uint8(),
        "forbidden": pa.uint8(),
        "signature": pa.binary(PERMUTATIONS * 4),
        "reason": pa.string(),
        "error": pa.list_(pa.string()),
    }
)
Columns = dict[str, list[Any]]


class FaultyFileError(Exception):
    """A step of the file is an error: its scan is not cached."""


def write_scan(stream: BinaryIO, steps: Iterable[Step], rules: Rules, *, refuses_faults: bool) -> None:
    """Write the scan of a file's steps, a few thousand in memory at a time.

    Raises:
        FaultyFileError: a step is an error, and `refuses_faults` is true.
    """
    with pa.ipc.new_file(stream, SCHEMA) as writer:
        source = iter(steps)
        for batch in iter(lambda: list(islice(source, BATCH)), []):
            columns: Columns = {name: [] for name in SCHEMA.names}
            texts: list[str] = []
            for step in batch:
                row = _row(step, rules, texts)
                if refuses_faults and row.get("error") is not None:
                    raise FaultyFileError
                for name, values in columns.items():
                    values.append(row.get(name))
            if rules.similarity and texts:
                marks = iter(signatures(texts))
                columns["signature"] = [next(marks).tobytes() if step == RECORD else None for step in columns["step"]]
            arrays = [pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()]
            writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))


def _row(step: Step, rules: Rules, texts: list[str]) -> dict[str, Any]:
    if isinstance(step, Deletion):
        return {"step": DELETION, "key": _key(step.key)}
    if isinstance(step, Drop):
        return {**_of_outcome(step, rules, texts), "key": NO_KEY}
    assert step.outcome is not None
    version = min(step.version, LARGEST_VERSION)
    return {**_of_outcome(step.outcome, rules, texts), "key": _key(step.key), "version": version}


def _key(key: int) -> int:
    return key if key < LARGEST_KEY else LARGEST_KEY | digest(str(key)) >> 2


def _of_outcome(outcome: Outcome, rules: Rules, texts: list[str]) -> dict[str, Any]:
    assert not isinstance(outcome, PartDrop)
    if isinstance(outcome, Drop):
        fault = outcome.error
        error = None if fault is None else [fault.what, fault.where, fault.fix]
        return {"step": DROP, "reason": outcome.reason, "error": error}
    texts.append(asked_of(outcome))
    return {
        "step": RECORD,
        "content": content(outcome),
        "uid": outcome.uid,
        "group": outcome.group,
        "source": outcome.source,
        "kind": KINDS.index(type(outcome)),
        "turns": int(isinstance(outcome, Pair) and outcome.is_conversation),
        "forbidden": FORBIDDEN.index(forbidden_reason(outcome, rules)),
    }


def is_complete(path: Path) -> bool:
    """Whether the scan at `path` can be read."""
    try:
        with pa.OSFile(str(path)) as file:
            return pa.ipc.open_file(file).schema == SCHEMA
    except (OSError, pa.ArrowInvalid):
        return False


class Scan:
    """The scan of one file, read from its Arrow file a batch at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _batches(self, *names: str) -> Iterator[pa.RecordBatch]:
        """The batches with these columns; of the others nothing is read."""
        wanted = pa.ipc.IpcReadOptions(included_fields=sorted(map(SCHEMA.get_field_index, names)))
        with pa.OSFile(str(self._path)) as file:
            reader = pa.ipc.open_file(file, options=wanted)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    def columns(self, *names: str) -> Iterator[list[NDArray[Any]]]:
        """Columns of numbers as arrays, a batch at a time; 0 where there is none."""
        for batch in self._batches(*names):
            yield [batch.column(name).fill_null(0).to_numpy(zero_copy_only=False) for name in names]

    def drops(self) -> Iterator[tuple[int, Drop]]:
        """The drops, each with its number among all steps."""
        start = 0
        for batch in self._batches("step", "reason", "error"):
            found = np.flatnonzero(batch.column("step").to_numpy() == DROP)
            chosen = batch.select(["reason", "error"]).take(pa.array(found))
            for number, reason, error in zip(found.tolist(), *(c.to_pylist() for c in chosen.columns), strict=True):
                fault = None if error is None else DataError(error[0], where=error[1], fix=error[2])
                yield start + number, Drop(reason, fault)
            start += batch.num_rows

    def digests(self, chosen: NDArray[np.bool_]) -> Iterator[RecordDigest]:
        """The chosen records, in order; `chosen` has a value for each step."""
        start = 0
        names = ("uid", "group", "source", "content", "forbidden")
        for batch in self._batches(*names, "signature"):
            found = np.flatnonzero(chosen[start : start + batch.num_rows])
            start += batch.num_rows
            if not len(found):
                continue
            rows = batch.take(pa.array(found))
            marks = rows.column("signature")
            has_marks = marks.null_count == 0
            values = np.frombuffer(b"".join(marks.to_pylist()), np.uint32) if has_marks else np.empty(0, np.uint32)
            table = values.reshape(len(found), -1)
            for number, (uid, group, source, own, forbidden) in enumerate(
                zip(*(rows.column(name).to_pylist() for name in names), strict=True)
            ):
                yield RecordDigest(uid, group, source, own, FORBIDDEN[forbidden], table[number])
