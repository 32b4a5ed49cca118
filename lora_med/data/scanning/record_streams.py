"""Records that are read again at each pass: a whole stream, and the part of it that is in one file."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_med.data.catalog import find_source
from lora_med.data.outcome import Again, Drop, PartDrop, ReadOptions
from lora_med.data.record import Record, Split, with_shown_uid
from lora_med.data.scanning.file_steps import Entry
from lora_med.data.splitting.scanned import TRAINING_ORDER
from lora_med.errors import DataError

NONE = 255  # the code of a step that is in no split


@dataclass(frozen=True)
class FilePart:
    """The records of one file that are in one split, read again at each pass. `sha256` is of the file's content."""

    source: str
    path: Path
    sha256: str
    options: ReadOptions
    codes: NDArray[np.uint8] = field(repr=False)
    split: Split
    access: str | None

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """For each step of reading the file, whether it is a record of this split."""
        return self.codes == TRAINING_ORDER.index(self.split)

    def numbered(self) -> Iterator[tuple[int, Record]]:
        """Every record of the file, also those of other splits or none, with the number of its step."""
        steps = importlib.import_module(find_source(self.source).module).steps(self.path, self.options)
        number = -1
        for number, step in enumerate(steps):
            outcome = step.outcome if isinstance(step, Entry) else None
            if outcome is not None and not isinstance(outcome, Drop | PartDrop):
                yield number, with_shown_uid(outcome, self.access)
        if number + 1 != len(self.codes):
            raise DataError("the file changed while it was read", where=str(self.path), fix="run the command again")

    def __iter__(self) -> Iterator[Record]:
        """The records of this split."""
        chosen = self.chosen
        if chosen.any():
            for number, record in self.numbered():
                if number < len(chosen) and chosen[number]:
                    yield record


@dataclass(frozen=True)
class Stream:
    """Records that are read again at each pass and never held; their number is known from the first.

    `parts` are the same records file by file, where the files were scanned one by one.
    """

    passes: Iterable[Record]
    length: int
    parts: tuple[FilePart, ...] = ()

    def __iter__(self) -> Iterator[Record]:
        return iter(self.passes)

    def __len__(self) -> int:
        return self.length


Records = Sequence[Record] | Stream


def first(records: Records, limit: int) -> Records:
    """The first `limit` records."""
    if isinstance(records, Stream):
        return Stream(Again(lambda: islice(records, limit)), min(limit, len(records)))
    return records[:limit]
