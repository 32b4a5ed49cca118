"""SHA-256 of a file while it is being written: a thread reads behind the writers, and is done soon after they are."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor, Future
from pathlib import Path

from lora_med.files import BLOCK_BYTES


class FileDigest:
    """The digest of a file's bytes, as far as nobody writes there any more.

    Args:
        hashing: an executor of one thread, so that the bytes are taken in their order.
    """

    def __init__(self, path: Path, hashing: Executor) -> None:
        self._path, self._hashing = path, hashing
        self._digest = hashlib.sha256()
        self._taken = 0
        self._jobs: list[Future[None]] = []

    def upto(self, place: int) -> None:
        """Let all bytes before `place` be hashed."""
        self._jobs.append(self._hashing.submit(self._take, place))

    def hexdigest(self) -> str:
        """SHA-256 of all that was let be hashed, lower-case hexadecimal; waits for it.

        Raises:
            OSError: the file cannot be read.
        """
        for job in self._jobs:
            job.result()
        return self._digest.hexdigest()

    def _take(self, place: int) -> None:
        with open(self._path, "rb") as handle:
            handle.seek(self._taken)
            while block := handle.read(min(BLOCK_BYTES, place - self._taken)):
                self._digest.update(block)
                self._taken += len(block)
