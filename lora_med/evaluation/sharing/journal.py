"""What an evaluation has scored so far, in files of its output folder: a killed evaluation goes on from them.

Each process appends to a file of its own, one line for each batch: a checksum, and as JSON the number of the call, the
number of the batch, and the results of its rows. The first line is a SHA-256 of everything that makes the results. A
file with another one is not used. Batches do not depend on the number of processes, so that a file serves any number.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_med.errors import OutputError
from lora_med.files import disk_errors, make_private, readable, write_atomic

KEY = "lora_med_scored_batches"

Batch = tuple[int, int]  # the numbers of the call and of the batch


def journal_name(rank: int | str) -> str:
    """The name of the file of the process with this rank."""
    return f"scored_batches_{rank}.jsonl"


class Journal:
    """The file of one process, beside those of the others.

    Args:
        folder: the output folder of the evaluation.
        rank: of this process.
        digest: SHA-256 of everything that makes the results.
        with_written: whether written answers may be in the file; numbers always are.
    """

    def __init__(self, folder: Path, rank: int, digest: str, *, with_written: bool) -> None:
        self.path = folder / journal_name(rank)
        self._folder, self._with_written = folder, with_written
        self._header = json.dumps({KEY: digest}).encode() + b"\n"
        self._handle: Any = None

    def read(self) -> dict[Batch, list[Any]]:
        """The results in the files of the folder that were made as this evaluation makes them, as appended."""
        results: dict[Batch, list[Any]] = {}
        for path in _files(self._folder):
            for _, (call, batch, values) in _lines(path, self._header):
                results[call, batch] = values
        return results

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Allow `append` in the block; the first one opens the file, so that bad input leaves none.

        Raises:
            OutputError: the folder has a file of this name that is something else.
        """
        if self.path.exists() and not _is_journal(self.path):
            raise OutputError(
                "the file has the name of one that lora-med eval writes while it scores, and is something else",
                where=str(self.path),
                fix="move it, or name another output folder (--out)",
            )
        try:
            yield
        finally:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def append(self, call: int, batch: int, values: Sequence[Any], *, written: bool) -> None:
        """Add the results of a batch; written answers only where that is allowed.

        Raises:
            OutputError: the folder is not writable.
            DiskError: the disk is full.
        """
        if written and not self._with_written:
            return
        with disk_errors(self.path):
            if self._handle is None:
                self._handle = self._opened()
            self._handle.write(_checked(json.dumps([call, batch, values]).encode()))
            self._handle.flush()

    def _opened(self) -> Any:
        """The file, to append to its complete lines if it was made as this evaluation makes them, else to a new one."""
        size = max((end for end, _ in _lines(self.path, self._header)), default=0)
        if size:
            os.truncate(self.path, size)  # a line that was cut off when the process was killed
        else:
            write_atomic(self.path, self._header, private=True)
        handle = open(self.path, "ab")  # noqa: SIM115 - `writing` closes it
        make_private(handle)
        return handle

    def remove(self) -> None:
        """Remove the files of all processes in the folder: the report holds their results."""
        for path in _files(self._folder):
            if _is_journal(path):
                path.unlink(missing_ok=True)

    def _check_own(self) -> None:
        if self.path.exists() and not _is_journal(self.path):
            raise OutputError(
                "the file has the name of one that lora-med eval writes while it scores, and is something else",
                where=str(self.path),
                fix="move it, or name another output folder (--out)",
            )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(journal_name("*")))


def _is_journal(path: Path) -> bool:
    """Whether such an evaluation began the file; False where another process of it has just removed it."""
    try:
        with open(path, "rb") as handle:
            return handle.read(len(KEY) + 2) == b'{"' + KEY.encode()
    except FileNotFoundError:
        return False


def _checked(content: bytes) -> bytes:
    """The content as a line with its checksum."""
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _lines(path: Path, header: bytes) -> Iterator[tuple[int, list[Any]]]:
    """Where each complete line after the first ends, and what it holds; none where the first is not `header`."""
    if not path.is_file():
        return
    with readable(path), open(path, "rb") as handle:
        if handle.readline() != header:
            return
        end = len(header)
        for line in handle:
            content = line[9:].removesuffix(b"\n")
            if line != _checked(content):  # the process was killed, or the machine went down, while it wrote
                return
            end += len(line)
            yield end, json.loads(content)
