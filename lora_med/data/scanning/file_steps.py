"""The steps of reading one file: articles with their versions, deletions of articles, and what is neither.

A source whose files can be scanned one by one has `steps(path, options)`, which gives them, and `in_order(paths)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_med.data.outcome import Drop, Outcome


@dataclass(slots=True)
class Entry:
    """One article of a file, in reading order; `outcome` is None if only versions are needed."""

    key: int
    version: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Deletion:
    """The article of this key is deleted, if an earlier entry holds it."""

    key: int


Step = Entry | Deletion | Drop
