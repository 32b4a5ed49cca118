"""A union-find over the numbers 0 to n, in a file of eight bytes a number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 20

Indices = NDArray[np.int64]


class ArrayLinks:
    """Sets that grow together, of numbers below `count`; of each set the smallest leads, whatever the order."""

    def __init__(self, path: Path, count: int) -> None:
        self._leader = np.memmap(path, np.int64, "w+", shape=(count,)) if count else np.empty(0, np.int64)
        for start in range(0, count, BLOCK):
            self._leader[start : start + BLOCK] = np.arange(start, min(start + BLOCK, count))

    def leaders(self, items: Indices) -> Indices:
        """The smallest of what each of the items is linked with."""
        leaders = np.asarray(self._leader[items])
        while True:
            above = np.asarray(self._leader[leaders])
            if np.array_equal(above, leaders):
                self._leader[items] = leaders
                return leaders
            leaders = above

    def join(self, items: Indices, others: Indices) -> None:
        """Link each item with the other of its position."""
        leader: Any = memoryview(np.asarray(self._leader))  # pyright: ignore[reportArgumentType]
        for item, other in zip(items.tolist(), others.tolist(), strict=True):
            first, second = _top(leader, item), _top(leader, other)
            leader[max(first, second)] = min(first, second)

    def linked(self) -> Iterator[tuple[Indices, Indices]]:
        """Each number that does not lead its set, in order, and its leader; a block at a time."""
        for start in range(0, len(self._leader), BLOCK):
            items = np.arange(start, min(start + BLOCK, len(self._leader)))
            leaders = self.leaders(items)
            follows = leaders != items
            if follows.any():
                yield items[follows], leaders[follows]


def _top(leader: Any, item: int) -> int:
    while (above := leader[item]) != item:
        leader[item] = leader[above]
        item = above
    return item
