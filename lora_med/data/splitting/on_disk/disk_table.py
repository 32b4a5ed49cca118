"""A read-only mapping for millions of entries: nine bytes an entry in memory, the keys in a Parquet file."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq

from lora_med.data.reading import digest
from lora_med.folders import PrivateFolder

KeyOf = TypeVar("KeyOf")
Value = TypeVar("Value", bound=str)
BATCH = 1 << 16


class DiskTable(Mapping[KeyOf, Value]):
    """The entries of a Parquet file whose last column is the value, in its order; `values` lists what may occur.

    A key is found by a digest of 64 bits, as reading finds duplicates. `folder` is deleted with the last table of it.
    """

    def __init__(
        self, path: Path, values: Sequence[Value], key_of: Callable[..., KeyOf], folder: PrivateFolder
    ) -> None:
        self._path, self._values, self._key_of, self._folder = path, tuple(values), key_of, folder
        digests, codes = array("Q"), bytearray()
        for key, value in self._rows():
            digests.append(_digest(key))
            codes.append(self._values.index(value))
        unsorted = np.frombuffer(digests, np.uint64) if digests else np.empty(0, np.uint64)
        order = np.argsort(unsorted, kind="stable")
        self._digests = array("Q", unsorted[order].tobytes())
        self._codes = np.frombuffer(bytes(codes), np.uint8)[order].tobytes()

    def _rows(self) -> Iterator[tuple[KeyOf, Value]]:
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(BATCH):
                for *key, value in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield self._key_of(*key), value

    def __getitem__(self, key: KeyOf) -> Value:
        wanted = _digest(key)
        position = bisect_left(self._digests, wanted)
        if position == len(self._digests) or self._digests[position] != wanted:
            raise KeyError(key)
        return self._values[self._codes[position]]

    def __iter__(self) -> Iterator[KeyOf]:
        return (key for key, _ in self._rows())

    def __len__(self) -> int:
        return len(self._digests)

    def items(self) -> ItemsView[KeyOf, Value]:
        """The entries in the order of the file."""
        return _Entries(self, self._rows)


class _Entries(ItemsView[KeyOf, Value]):
    def __init__(self, table: Mapping[KeyOf, Value], rows: Callable[[], Iterable[tuple[KeyOf, Value]]]) -> None:
        super().__init__(table)
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[KeyOf, Value]]:
        return iter(self._rows())


def _digest(key: Any) -> int:
    return digest("\x1f".join(map(str, key)) if isinstance(key, tuple) else key)
