"""SHA-256 of a file while it is written: a thread reads behind the writers and ends soon after them."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor, Future
from pathlib import Path

STEP_BYTES = 1 << 24  # submitted at a time
BUFFER_BYTES = 1 << 18  # read and hashed at a time, small enough to stay in a core's cache


class FileDigest:
    """The digest of the part of a file that is completely written.

    Args:
        hashing: an executor of one thread, so that the bytes are hashed in order.
    """

    def __init__(self, path: Path, hashing: Executor) -> None:
        self._path, self._hashing = path, hashing
        self._digest = hashlib.sha256()
        self._complete = self._submitted = self._hashed = 0
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._jobs: list[Future[None]] = []

    def upto(self, end: int) -> None:
        """All bytes before `end` are complete, and may be hashed."""
        self._complete = end
        if end - self._submitted >= STEP_BYTES:
            self._submit()

    def hexdigest(self) -> str:
        """SHA-256 of all complete bytes, in lower-case hexadecimal; waits for it.

        Raises:
            OSError: the file cannot be read.
        """
        self._submit()
        for job in self._jobs:
            job.result()
        return self._digest.hexdigest()

    def _submit(self) -> None:
        self._submitted = self._complete
        self._jobs.append(self._hashing.submit(self._hash, self._complete))

    def _hash(self, end: int) -> None:
        with open(self._path, "rb", buffering=0) as handle:
            handle.seek(self._hashed)
            while count := handle.readinto(self._buffer[: end - self._hashed]):
                self._digest.update(self._buffer[:count])
                self._hashed += count
