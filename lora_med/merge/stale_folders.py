"""Remove what killed merges leave beside their target, but not the folders of running ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a temporary folder; the kernel unlocks it when the process ends, so `sweep` skips running processes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sweep(target: Path) -> None:
    """Remove what killed merges into `target` left beside it."""
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(OSError):
            with held(leftover):
                pass
            shutil.rmtree(leftover)
