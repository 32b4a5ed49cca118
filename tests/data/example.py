"""What an example of a source is."""

from __future__ import annotations

from dataclasses import dataclass

from lora_med.data.record import Record


@dataclass(frozen=True)
class Example:
    """A file's name and content, what reading it gives, and what is dropped by reason."""

    file: str
    content: str
    records: tuple[Record, ...]
    dropped: dict[str, int]
