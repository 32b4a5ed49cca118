"""A folder of the cache that one process makes while the others wait for it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lora_med.errors import OutputError
from lora_med.folders import lock

WAIT_SECONDS = 2.0
MOST_WAITS = 1800


@contextlib.contextmanager
def made_once(target: Path, is_complete: Callable[[], bool]) -> Iterator[bool]:
    """Hold the lock of `target`; yields whether it is complete, because another process has made it meanwhile.

    Raises:
        OutputError: the lock cannot be taken: its folder cannot be written, or another process holds it for an hour.
    """
    door = target.with_name(f"{target.name}.lock")
    for _ in range(MOST_WAITS):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock(door))
            except OutputError:
                if not door.is_dir() or not os.access(door, os.W_OK):
                    raise
            else:
                yield is_complete()
                return
        time.sleep(WAIT_SECONDS)
    raise OutputError("another process has been making this base for an hour", where=str(door), fix="end that process")
