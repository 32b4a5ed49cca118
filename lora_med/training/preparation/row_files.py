"""Files of rows: an Arrow stream of token ids and labels, and beside it a JSON file with what a run must know of it.

The JSON file is written last: rows without it do not exist. Both are the owner's alone (0600).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lora_med.files import atomic_stream, write_atomic
from lora_med.folders import PrivateFolder
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.examined import trained_runs
from lora_med.training.preparation.prepared_names import FACTS, ROWS, SCRATCH
from lora_med.training.preparation.row_kinds import RowKind
from lora_med.training.preparation.token_files import UNTRAINED, TokenizedDocuments, tokenize
from lora_med.training.rows.packing import pack_lengths
from lora_med.training.rows.shared_prefix_rows import SharedPrefix, join_shared_prefixes

ROWS_A_BATCH = 1000
SAMPLE_ROWS = 64
NUMBERS = pa.list_(pa.int32())
SCHEMA = pa.schema({"input_ids": NUMBERS, "labels": NUMBERS, "seq_lengths": NUMBERS})
SHARED_PREFIX_SCHEMA = SCHEMA.append(pa.field("shared_prefixes", pa.list_(NUMBERS)))


@dataclass(frozen=True)
class RowFile:
    """What is to be prepared: the rows of a split, and where they go. `path` has no suffix."""

    path: Path
    kind: RowKind
    what: str
    packing: bool
    share_context: bool


@dataclass(frozen=True)
class _Row:
    """The documents of one row as arrays; where one has a shared prefix, the lengths of the parts of each."""

    ids: Sequence[NDArray[np.int32]]
    labels: Sequence[NDArray[np.int32]]
    shared: Sequence[Sequence[int]] = ()


class RowDigest:
    """SHA-256 over every token id and label in order, as blocks of 1,000 rows give them."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, columns: Sequence[Any], shared: Iterable[Sequence[Sequence[int]]]) -> None:
        """Add the token ids, labels and lengths of a block, each column end to end, and its shared prefixes."""
        for values in columns:
            self._digest.update(np.ascontiguousarray(values, dtype="<i4").data)
            self._digest.update(b"|")
        for row in shared:
            self._digest.update(repr([[int(length) for length in lengths] for lengths in row]).encode())

    def hexdigest(self) -> str:
        """The digest of what was added."""
        return self._digest.hexdigest()


def write_row_file(records: Sequence[Any], file: RowFile, processes: int) -> None:
    """Tokenize, check, pack and write the rows of a split.

    Raises:
        PreflightError: the rows would train something other than what is meant.
        LoraMedError: as the kind of row raises it.
        DiskError, OutputError: they cannot be written.
    """
    scratch = PrivateFolder(SCRATCH, parent=file.path.parent)
    try:
        documents, facts = tokenize(records, file.kind, scratch.path, processes)
        conclusion = file.kind.conclude(facts, file.what)
        target = file.path.with_name(file.path.name + ROWS)
        with atomic_stream(target, private=True) as stream:
            rows, is_shared = _rows(documents, file)
            digest, trained = _write(stream, rows, shared=is_shared)
        state = target.stat()
        facts_of_rows = {
            "rows": digest,
            "bytes": state.st_size,
            "modified_ns": state.st_mtime_ns,
            "trained_tokens": trained,
            "report": conclusion.report,
            "warnings": conclusion.warnings,
            "shown": [[row.uid, row.input_ids, trained_runs(row.trained)] for row in conclusion.shown],
            "sample": [documents.arrays(number)[0].tolist() for number in range(min(SAMPLE_ROWS, len(documents)))],
            **({"groups": list(conclusion.groups)} if conclusion.groups else {}),
        }
        content = json.dumps(facts_of_rows, allow_nan=False)
        write_atomic(file.path.with_name(file.path.name + FACTS), content, private=True)
    finally:
        scratch.cleanup()


def _rows(documents: TokenizedDocuments, file: RowFile) -> tuple[Iterator[_Row], bool]:
    """The rows, and whether any has a shared prefix."""
    length = file.kind.max_length
    if not file.share_context:
        each = _each(len(documents), file.kind.documents_a_row)
        groups = pack_lengths(documents.lengths.tolist(), length) if file.packing else each
        return (_Row(*zip(*map(documents.arrays, group), strict=True)) for group in groups), False
    joined = join_shared_prefixes(documents.tokens(), length)
    groups = pack_lengths([len(row.input_ids) for row in joined], length) if file.packing else _each(len(joined), 1)
    is_shared = any(isinstance(row, SharedPrefix) for row in joined)
    return (_joined_row([joined[number] for number in group]) for group in groups), is_shared


def _each(count: int, together: int) -> Iterable[Sequence[int]]:
    return (range(start, start + together) for start in range(0, count, together))


def _joined_row(documents: Sequence[Tokens]) -> _Row:
    ids = [np.asarray(document.input_ids, np.int32) for document in documents]
    trained = (np.asarray(document.trained, bool) for document in documents)
    labels = [np.where(flags, own, np.int32(UNTRAINED)) for flags, own in zip(trained, ids, strict=True)]
    lengths = [list(document.lengths) if isinstance(document, SharedPrefix) else [] for document in documents]
    return _Row(ids, labels, lengths if any(lengths) else [])


def _write(stream: BinaryIO, rows: Iterator[_Row], *, shared: bool) -> tuple[str, int]:
    """Write the rows as an Arrow stream; returns their digest and the number of trained tokens."""
    schema = SHARED_PREFIX_SCHEMA if shared else SCHEMA
    digest, trained = RowDigest(), 0
    with pa.ipc.new_stream(stream, schema) as writer:
        while block := list(islice(rows, ROWS_A_BATCH)):
            ids = np.concatenate([part for row in block for part in row.ids])
            labels = np.concatenate([part for row in block for part in row.labels])
            documents = np.asarray([len(part) for row in block for part in row.ids], np.int32)
            tokens_a_row = [sum(map(len, row.ids)) for row in block]
            prefixes = [row.shared for row in block] if shared else []
            digest.add([ids, labels, documents], prefixes)
            trained += int(np.count_nonzero(labels != UNTRAINED))
            columns = [
                _lists(ids, tokens_a_row),
                _lists(labels, tokens_a_row),
                _lists(documents, [len(row.ids) for row in block]),
                *([pa.array(prefixes, SHARED_PREFIX_SCHEMA.field("shared_prefixes").type)] if shared else []),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return digest.hexdigest(), trained


def _lists(values: NDArray[np.int32], lengths: Sequence[int]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
