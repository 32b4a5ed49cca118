"""Records to files of tokens, by this process or by forked ones; read back as arrays that are mapped into memory.

Each process takes every n-th block of records, so the result depends on nothing but the records. Forking is safe where
this process has no threads, as `preparer` has none: a fork shares the records, which are not copied.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_med.errors import LoraMedError, StoppedError
from lora_med.files import full_disk
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.row_kinds import RowKind

BLOCK_RECORDS = 1024
UNTRAINED = -100
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


@dataclass(frozen=True)
class Block:
    """What is known of a block beside its tokens: the lengths of its documents, and the facts of its rows."""

    lengths: array[int]
    facts: Any


@dataclass(frozen=True)
class TokenizedDocuments:
    """Documents in the order of their records. `files` are the token ids and labels that each process wrote.

    A document is the `lengths` numbers from `starts` on in the files of its process.
    """

    files: list[tuple[NDArray[np.int32], NDArray[np.int32]]]
    process: NDArray[np.int16]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def arrays(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The token ids and labels of a document."""
        ids, labels = self.files[self.process[number]]
        start = self.starts[number]
        end = start + self.lengths[number]
        return ids[start:end], labels[start:end]

    def tokens(self) -> list[Tokens]:
        """All documents as text in memory, without their uids."""
        documents: list[Tokens] = []
        for number in range(len(self)):
            ids, labels = self.arrays(number)
            documents.append(Tokens("", ids.tolist(), (labels != UNTRAINED).tolist()))
        return documents


def tokenize(records: Sequence[Any], kind: RowKind, folder: Path, processes: int) -> tuple[TokenizedDocuments, Any]:
    """The documents of the records and the facts of all blocks, from files in `folder`.

    Raises:
        LoraMedError: as `kind.block`; that of the first block, as one process would meet it.
        StoppedError: a forked process was ended from outside.
        DiskError: the disk is full or failed.
    """
    processes = max(1, min(processes, -(-len(records) // BLOCK_RECORDS)))
    if processes == 1:
        outcomes = [_write_stripe(records, kind, folder, 0, 1)]
    else:
        gc.freeze()  # else each fork's first collection copies the memory that it shares with this process
        children = [_fork(records, kind, folder, number, processes) for number in range(processes)]
        gc.unfreeze()
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        outcomes = [_outcome(folder, number, status) for number, status in enumerate(statuses)]
    errors = {len(blocks) * processes + number: error for number, (blocks, error) in enumerate(outcomes) if error}
    if errors:
        raise errors[min(errors)]
    return _joined([blocks for blocks, _ in outcomes], kind, folder)


def _write_stripe(
    records: Sequence[Any], kind: RowKind, folder: Path, number: int, processes: int
) -> tuple[list[Block], BaseException | None]:
    """The blocks of one process in order, up to the first error, which is returned."""
    blocks: list[Block] = []
    ids_file, labels_file = _paths(folder, number)
    try:
        with full_disk(folder), ids_file.open("wb") as ids_stream, labels_file.open("wb") as labels_stream:
            for start in range(number * BLOCK_RECORDS, len(records), processes * BLOCK_RECORDS):
                documents, facts = kind.block(records[start : start + BLOCK_RECORDS])
                for document in documents:
                    ids = np.asarray(document.input_ids, np.int32)
                    targets = ids if document.targets is document.input_ids else np.asarray(document.targets, np.int32)
                    ids.tofile(ids_stream)
                    np.where(np.asarray(document.trained, bool), targets, np.int32(UNTRAINED)).tofile(labels_stream)
                blocks.append(Block(array("i", [len(document.input_ids) for document in documents]), facts))
    except LoraMedError as error:
        return blocks, error
    return blocks, None


def _fork(records: Sequence[Any], kind: RowKind, folder: Path, number: int, processes: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        end_with_parent()
        os.environ["TOKENIZERS_PARALLELISM"] = "0"  # one thread a process; "false" would let large batches have all
        # A thread has a memory arena of its own. That of this process is in pieces once records were read, and
        # tokenizing there took twice the CPU time.
        with ThreadPoolExecutor(1) as arena:
            outcome = arena.submit(_write_stripe, records, kind, folder, number, processes).result()
        with full_disk(folder), _outcome_file(folder, number).open("wb") as stream:
            pickle.dump(outcome, stream, protocol=pickle.HIGHEST_PROTOCOL)
        code = 0
    except BaseException as error:
        with _outcome_file(folder, number).open("wb") as stream:
            pickle.dump(([], error if isinstance(error, LoraMedError) else RuntimeError(repr(error))), stream)
        code = 0
    finally:
        os._exit(code)


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends, however that ends (Linux)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _outcome(folder: Path, number: int, status: int) -> tuple[list[Block], BaseException | None]:
    if status > 0:
        raise RuntimeError(f"a process that tokenizes failed (status {status})")
    if status:
        raise StoppedError(
            f"a process that tokenizes was ended from outside (signal {-status}); nothing of it is used",
            where=str(folder.parent),
            fix="run the same command again; if memory is short, with fewer processes: taskset -c 0",
        )
    with _outcome_file(folder, number).open("rb") as stream:
        return pickle.load(stream)


def _joined(outcomes: list[list[Block]], kind: RowKind, folder: Path) -> tuple[TokenizedDocuments, Any]:
    """The blocks of all processes in the order of the records."""
    facts = kind.no_facts()
    process: list[NDArray[np.int16]] = []
    starts: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    ends = [0] * len(outcomes)
    for number in range(sum(map(len, outcomes))):
        owner = number % len(outcomes)
        block = outcomes[owner][number // len(outcomes)]
        facts.merge(block.facts)
        own = np.asarray(block.lengths, np.int64)
        after = ends[owner] + np.cumsum(own)
        process.append(np.full(len(own), owner, np.int16))
        starts.append(after - own)
        lengths.append(own)
        ends[owner] += int(own.sum())
    empty = np.zeros(0, np.int64)
    paths = [_paths(folder, owner) for owner in range(len(ends))]
    files = [(_mapped(path, end), _mapped(other, end)) for end, (path, other) in zip(ends, paths, strict=True)]
    return TokenizedDocuments(
        files,
        np.concatenate([*process, empty.astype(np.int16)]),
        np.concatenate([*starts, empty]),
        np.concatenate([*lengths, empty]),
    ), facts


def _mapped(path: Path, count: int) -> NDArray[np.int32]:
    return np.memmap(path, np.int32, "r", shape=(count,)) if count else np.zeros(0, np.int32)


def _paths(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number}.ids", folder / f"{number}.labels"


def _outcome_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.outcome"
