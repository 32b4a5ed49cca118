"""SHA-256 of a file while it is being written: a thread reads behind the writers, and is done soon after they are."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor, Future
from pathlib import Path

STEP_BYTES = 1 << 24  # asked for at a time
BUFFER_BYTES = 1 << 18  # read and hashed at a time, small enough to stay in a core's cache


class FileDigest:
    """The digest of a file's bytes, as far as nobody writes there any more.

    Args:
        hashing: an executor of one thread, so that the bytes are taken in their order.
    """

    def __init__(self, path: Path, hashing: Executor) -> None:
        self._path, self._hashing = path, hashing
        self._digest = hashlib.sha256()
        self._whole = self._asked = self._taken = 0
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._jobs: list[Future[None]] = []

    def upto(self, place: int) -> None:
        """All bytes before `place` are whole, and may be hashed."""
        self._whole = place
        if place - self._asked >= STEP_BYTES:
            self._ask()

    def hexdigest(self) -> str:
        """SHA-256 of all that is whole, lower-case hexadecimal; waits for it.

        Raises:
            OSError: the file cannot be read.
        """
        self._ask()
        for job in self._jobs:
            job.result()
        return self._digest.hexdigest()

    def _ask(self) -> None:
        self._asked = self._whole
        self._jobs.append(self._hashing.submit(self._take, self._whole))

    def _take(self, place: int) -> None:
        with open(self._path, "rb", buffering=0) as handle:
            handle.seek(self._taken)
            while count := handle.readinto(self._buffer[: place - self._taken]):
                self._digest.update(self._buffer[:count])
                self._taken += count
