"""What killed merges leave beside their target, told from what living ones are at work on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a temporary folder; the kernel lets go when the process ends, so `sweep` knows the dead from the living."""
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
