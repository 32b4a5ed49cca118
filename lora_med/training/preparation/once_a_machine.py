"""Work that one process of a machine does for all: the others sleep until its result is there, and say so.

The lock is the kernel's. If the process that holds it is killed, the lock is free, and the next one does the work. On a
file system without locks every process does the work; the results are equal, and the last one written remains.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from lora_med.errors import IntegrityError
from lora_med.files import disk_errors
from lora_med.processes.launch import local_rank, rank

Result = TypeVar("Result")
LOOK_SECONDS = 0.2
LEADER_SECONDS = 60.0  # that the machine's other processes give the first to begin, before one of them does
logger = logging.getLogger(__name__)


def once_a_machine(lock: Path, doing: str, look: Callable[[], Result | None], make: Callable[[], None]) -> Result:
    """The result that `look` finds; where it finds none, one process of this machine calls `make`, the others wait.

    The first process of the machine does the work; another one only where the first does not begin or is killed.

    Raises:
        IntegrityError: the result was made and is not there.
        DiskError, OutputError: the lock cannot be made.
    """
    result = look() or _begun_by_first(lock, look)
    if result is not None:
        return result
    with _held(lock, doing):
        result = look()
        if result is None:
            make()
            result = look()
    if result is None:
        raise IntegrityError(f"{doing} are written and cannot be read", where=str(lock.parent), fix="run it again")
    return result


def _begun_by_first(lock: Path, look: Callable[[], Result | None]) -> Result | None:
    """Sleep until the machine's first process has the lock or the result is there; then the result, if it is there."""
    until = time.monotonic() + LEADER_SECONDS
    while local_rank() and time.monotonic() < until and not _is_locked(lock):
        result = look()
        if result is not None:
            return result
        time.sleep(LOOK_SECONDS)
    return None


def _is_locked(lock: Path) -> bool:
    try:
        with lock.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def _held(lock: Path, doing: str) -> Iterator[None]:
    with disk_errors(lock):
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, doing)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, doing: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
    except OSError:
        return  # a file system without locks
    waiting = logging.getLogger(f"{__name__}.waiting")
    waiting.setLevel(logging.INFO)  # every process says that it waits, not the first alone
    whose = f"process {holder}" if holder else "another process"
    waiting.info("process %d waits: %s of this machine prepares %s", rank(), whose, doing)
    since = time.monotonic()
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    waiting.info("process %d goes on after %.0f s", rank(), time.monotonic() - since)
