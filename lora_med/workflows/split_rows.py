"""The rows of both splits that a task is trained and validated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SplitRows:
    """Rows that passed the checks of their task; `stream_key` identifies the data of a stream, else it is None."""

    training: Any
    validation: Any
    stream_key: str | None = None

    def digest(self) -> str:
        """SHA-256 of the rows of both splits, for processes to compare; of a stream, of what decides its rows."""
        training = self.stream_key if self.stream_key is not None else self.training.digest
        return hashlib.sha256(f"{training} {self.validation.digest}".encode()).hexdigest()

    @property
    def report(self) -> dict[str, Any]:
        """Lengths and counts of both splits, as JSON values."""
        return {"training": self.training.report, "validation": self.validation.report}

    def sample(self) -> list[list[int]]:
        """Token ids of some training rows, for an initialization that looks at data (EVA)."""
        return self.training.sample()
