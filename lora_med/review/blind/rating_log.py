"""The ratings of a study: each is on disk before the page answers, the same one twice is stored once.

A corrected rating is a further line; the last line of an assignment counts, and all lines remain.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from lora_med.append_log import append_line, read_lines
from lora_med.errors import NotPermittedError
from lora_med.review.blind.rating import Rating, rating_from_line, stamped
from lora_med.review.blind.study import EVENTS, RATINGS, Study


class RatingLog:
    """The stored ratings of a study, read on as other processes append."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._path = study.folder / RATINGS
        self._lock = threading.Lock()
        self._offset = 0
        self._last: dict[str, Rating] = {}
        self._lines: Counter[str] = Counter()

    def current(self) -> dict[str, Rating]:
        """Assignment -> its rating that counts.

        Raises:
            IntegrityError: a line of the file is not a rating.
        """
        with self._lock:
            return dict(self._read_on())

    def corrected(self) -> int:
        """How many assignments were rated again with another result."""
        with self._lock:
            self._read_on()
            return sum(count > 1 for count in self._lines.values())

    def store(self, rating: Rating) -> bool:
        """Write the rating to disk; False if the same one is there already.

        Raises:
            NotPermittedError: the study is unsealed, so ratings would no longer be blind.
            DiskError, OutputError: the rating is not stored.
        """
        with self._lock:
            if self._read_on().get(rating.assignment) == rating:
                return False
            if unsealed(self._study) is not None:
                raise NotPermittedError(
                    "the study is unsealed: a rating would no longer be blind",
                    where=str(self._study.folder),
                    fix="draw a new plan: lora-med review plan",
                )
            append_line(self._path, stamped(rating))
            return True

    def _read_on(self) -> dict[str, Rating]:
        lines, self._offset = read_lines(self._path, self._offset)
        for line in lines:
            rating = rating_from_line(line)
            self._last[rating.assignment] = rating
            self._lines[rating.assignment] += 1
        return self._last


def unsealed(study: Study) -> dict[str, Any] | None:
    """The event that unsealed the study; None while it is sealed."""
    events, _ = read_lines(study.folder / EVENTS)
    return next((event for event in events if event.get("event") == "unsealed"), None)
