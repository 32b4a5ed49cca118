"""A scanned record without its text, and batches of them: what decontamination works on, in memory or on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_med.data.record import Split
from lora_med.data.splitting.near_duplicates import Signatures

TRAINING_ORDER: tuple[Split, ...] = ("train", "validation", "test")  # of two records alike, the earlier split's leaves
Key = tuple[int, Split, str]


@dataclass(frozen=True, slots=True)
class Scanned:
    """A scanned record without its text. Its uid is unique within its source and split only."""

    origin: int
    split: Split
    uid: str
    group: str
    content: int

    @property
    def key(self) -> Key:
        """Its unique key."""
        return (self.origin, self.split, self.uid)


@dataclass(frozen=True, slots=True)
class RecordDigest:
    """What comparing needs of a record that was scanned before: all but its text.

    `forbidden` is the reason why it may not be trained on, if there is one, and `signature` has 128 numbers, or none
    where near-duplicates are not looked for.
    """

    uid: str
    group: str
    source: str
    content: int
    forbidden: str | None
    signature: NDArray[np.uint32]


@dataclass(frozen=True)
class ScannedBatch:
    """Records scanned one after another.

    `forbidden` holds those that block-lists or test files exclude, each with the reason; `seen` the others.
    `signatures` has one row for each of `seen`, or none where near-duplicates are not looked for.
    """

    forbidden: list[tuple[Key, str]]
    seen: list[Scanned]
    signatures: Signatures | None
