"""A log that only grows: each line is on disk before the call returns, and a killed process loses none of them.

A line counts once its line feed is on disk. What a killed process left after the last line feed was never
acknowledged: it is removed before the next line is appended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.files import disk_errors, readable, sync

BLOCK = 1 << 16
logger = logging.getLogger(__name__)


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append `value` as one JSON line, flushed to disk; several processes may append to one file.

    Raises:
        DiskError: the disk is full or failed; nothing of the line counts.
        OutputError: the file cannot be written.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
    with disk_errors(path):
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = _complete_end(descriptor)
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
    if not path.exists():
        return [], 0
    with readable(path), open(path, "rb") as handle:
        handle.seek(start)
        content = handle.read()
    complete = content[: content.rfind(b"\n") + 1]
    values, offset = [], start
    for line in complete.split(b"\n")[:-1]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise IntegrityError("a line of the log is not JSON", where=f"{path}, byte {offset:,}", fix="restore it")
        values.append(value)
        offset += len(line) + 1
    return values, start + len(complete)


def _complete_end(descriptor: int) -> int:
    """Remove what follows the last line feed, and return where the file ends then."""
    size = os.fstat(descriptor).st_size
    end, position = 0, size
    while position > 0:
        begin = max(0, position - BLOCK)
        block = os.pread(descriptor, position - begin, begin)
        if b"\n" in block:
            end = begin + block.rfind(b"\n") + 1
            break
        position = begin
    if end < size:
        logger.warning("removed %s bytes of a line that was never acknowledged", f"{size - end:,}")
        os.ftruncate(descriptor, end)
    return end
