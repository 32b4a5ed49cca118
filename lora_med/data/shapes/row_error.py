"""RowError: a row that does not fit its shape, with the reason that counts it and what was expected; and Rejected."""

from __future__ import annotations


class RowError(Exception):
    """A value that does not fit its field; `reason` counts the drop, `what` was expected, without the row's text."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what


class Rejected(Exception):
    """A row that its annotator rejected, skipped or did not finish: it is dropped and counted, without an error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
