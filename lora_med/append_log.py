"""A log that only grows: each line is on disk before the call returns, and a killed process loses none of them.

A line counts once its line feed is on disk. What a killed process left after the last line feed was never
acknowledged: it is removed before the next line is appended.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.files import disk_errors, readable, sync

BLOCK = 1 << 16
FIRST = "0" * 64
logger = logging.getLogger(__name__)


def append_line(path: Path, value: Mapping[str, Any], *, is_chained: bool = False) -> None:
    """Append `value` as one JSON line, flushed to disk; several processes may append to one file.

    Args:
        is_chained: the line begins with `previous`, the SHA-256 of the line before it without its line feed, in hex;
            `FIRST` in the first line.

    Raises:
        DiskError: the disk is full or failed; nothing of the line counts.
        OutputError: the file cannot be written.
    """
    with disk_errors(path):
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = _complete_end(descriptor)
            linked = {"previous": _hash_of_last(descriptor, end), **value} if is_chained else value
            line = json.dumps(linked, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
            try:
                remaining = memoryview(line)
                while remaining:
                    remaining = remaining[os.write(descriptor, remaining) :]
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):  # the first error is the one to report
                    os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            sync(path.parent)


def read_lines(path: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The lines from the byte offset `start` on, and the offset after the last complete one.

    Raises:
        IntegrityError: a complete line is not a JSON object; the message names its offset, never its text.
    """
    values, offset = [], start
    for line in complete_lines(path, start):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise IntegrityError("a line of the log is not JSON", where=f"{path}, byte {offset:,}", fix="restore it")
        values.append(value)
        offset += len(line) + 1
    return values, offset


def complete_lines(path: Path, start: int = 0) -> list[bytes]:
    """The complete lines from the byte offset `start` on, without their line feeds; none if there is no such file."""
    if not path.exists():
        return []
    with readable(path), open(path, "rb") as handle:
        handle.seek(start)
        return handle.read().split(b"\n")[:-1]


def line_hash(line: bytes) -> str:
    """SHA-256 of a line without its line feed, in hex: what the next line of a chained log begins with."""
    return hashlib.sha256(line).hexdigest()


def _complete_end(descriptor: int) -> int:
    """Remove what follows the last line feed, and return where the file ends then."""
    size = os.fstat(descriptor).st_size
    end = _line_begin(descriptor, size)
    if end < size:
        logger.warning("removed %s bytes of a line that was never acknowledged", f"{size - end:,}")
        os.ftruncate(descriptor, end)
    return end


def _hash_of_last(descriptor: int, end: int) -> str:
    """The hash of the line whose line feed is just before `end`; FIRST if there is none."""
    if not end:
        return FIRST
    begin = _line_begin(descriptor, end - 1)
    digest = hashlib.sha256()
    for position in range(begin, end - 1, BLOCK):
        digest.update(os.pread(descriptor, min(BLOCK, end - 1 - position), position))
    return digest.hexdigest()


def _line_begin(descriptor: int, end: int) -> int:
    """The offset after the last line feed before `end`; 0 if there is none."""
    while end > 0:
        begin = max(0, end - BLOCK)
        place = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if place >= 0:
            return begin + place + 1
        end = begin
    return 0
