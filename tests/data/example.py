"""What an example of a source is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lora_med.data.record import Record


@dataclass(frozen=True)
class Example:
    """A file's name and content, what reading it gives, and what is dropped by reason.

    `companions` are the files that the format needs beside it, by name; `parts_dropped` is what is left out within the
    records, by reason, and `repeated` how many records have the content of an earlier one.
    """

    file: str
    content: str
    records: tuple[Record, ...]
    dropped: dict[str, int]
    companions: dict[str, str] = field(default_factory=dict)
    parts_dropped: dict[str, int] = field(default_factory=dict)
    repeated: int = 0

    def write(self, folder: Path, content: bytes | None = None, name: str | None = None) -> Path:
        """The path of the file, with `content` or its own, beside its companions."""
        folder.mkdir(parents=True, exist_ok=True)
        for companion, text in self.companions.items():
            (folder / companion).write_bytes(text.encode("utf-8"))
        path = folder / (name or self.file)
        path.write_bytes(self.content.encode("utf-8") if content is None else content)
        return path
