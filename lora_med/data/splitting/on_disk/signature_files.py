"""Near-duplicates among more texts than memory holds: the clusters of `near_duplicates.clusters`, from files.

768 bytes a text on disk: its signature, and one number for each of the 32 bands, in a file for each band. DuckDB finds
the texts that share a band's number. The signatures of the pairs are read in blocks. What is held in memory does not
grow with the number of texts; the links are in a file of eight bytes a text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lora_med.data.splitting.near_duplicates import ALL_PAIRS, BAND, PERMUTATIONS, Signatures, band_keys
from lora_med.data.splitting.on_disk.array_links import ArrayLinks, Indices
from lora_med.data.splitting.on_disk.duckdb_connection import BLOCK, Connection, blocks

ROW_BYTES = PERMUTATIONS * 4
BANDS = range(0, PERMUTATIONS, BAND)
COMPARED = 1 << 14  # pairs whose signatures are in memory at once
PAIRS = f"""
    SELECT one.item AS item, other.item AS other FROM repeated AS one JOIN repeated AS other USING (key)
    WHERE one.size <= {ALL_PAIRS} AND one.item < other.item
    UNION ALL
    SELECT before, item FROM repeated WHERE size > {ALL_PAIRS} AND before IS NOT NULL
    UNION ALL
    SELECT first, item FROM repeated WHERE size > {ALL_PAIRS} AND first < before
"""
REPEATED = """
    CREATE OR REPLACE TEMP TABLE repeated AS
    SELECT key, item, count(*) OVER (PARTITION BY key) AS size, lag(item) OVER in_order AS before,
        min(item) OVER (PARTITION BY key) AS first
    FROM (SELECT key, item FROM band QUALIFY count(*) OVER (PARTITION BY key) > 1)
    WINDOW in_order AS (PARTITION BY key ORDER BY item)
"""
SCHEMA = pa.schema({"key": pa.uint64(), "item": pa.int64()})


class SignatureFiles:
    """The signatures of many texts, in files of `folder`: written in order, then read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = ExitStack()
        self._signatures = self._files.enter_context((folder / "signatures").open("wb"))
        self._bands = [self._files.enter_context(self._band(band).open("wb")) for band in BANDS]
        self.count = 0

    def _band(self, band: int) -> Path:
        return self._folder / f"band-{band:03}"

    def append(self, signatures: Signatures) -> None:
        """Write the signatures of further texts; shape `(texts, 128)`."""
        self._signatures.write(np.ascontiguousarray(signatures).tobytes())
        for band, file in zip(BANDS, self._bands, strict=True):
            file.write(band_keys(signatures, band).tobytes())
        self.count += len(signatures)

    def close(self) -> None:
        """End the writing."""
        self._files.close()

    def link(self, connection: Connection, similarity: float) -> ArrayLinks:
        """The texts that belong together; of each set the first leads. The files of the bands are deleted."""
        self.close()
        links = ArrayLinks(self._folder / "links", self.count)
        with (self._folder / "signatures").open("rb", buffering=0) as file:
            for band in BANDS:
                for items, others in self._candidates(connection, band):
                    _link_similar(links, items, others, similarity, file.fileno())
                self._band(band).unlink()
        connection.execute("DROP TABLE IF EXISTS repeated")
        return links

    def _candidates(self, connection: Connection, band: int) -> Iterator[tuple[Indices, Indices]]:
        connection.register("band", pa.RecordBatchReader.from_batches(SCHEMA, _key_batches(self._band(band))))
        connection.execute(REPEATED)
        connection.unregister("band")
        for pairs in blocks(connection, PAIRS):
            yield pairs[0], pairs[1]


def _key_batches(path: Path) -> Iterator[pa.RecordBatch]:
    start = 0
    with path.open("rb") as file:
        while len(keys := np.fromfile(file, np.uint64, BLOCK)):
            items = np.arange(start, start + len(keys))
            start += len(keys)
            yield pa.record_batch([pa.array(keys), pa.array(items)], schema=SCHEMA)


def _link_similar(links: ArrayLinks, items: Indices, others: Indices, similarity: float, file: int) -> None:
    """Link the pairs that are similar enough; those that are linked already are not compared."""
    for start in range(0, len(items), COMPARED):
        first, second = items[start : start + COMPARED], others[start : start + COMPARED]
        apart = links.leaders(first) != links.leaders(second)
        first, second = first[apart], second[apart]
        if not len(first):
            continue
        texts, position = np.unique(np.concatenate([first, second]), return_inverse=True)
        rows = _rows(file, texts)
        equal = np.count_nonzero(rows[position[: len(first)]] == rows[position[len(first) :]], axis=1)
        similar = equal >= similarity * PERMUTATIONS
        links.join(first[similar], second[similar])


def _rows(file: int, texts: Indices) -> NDArray[np.uint32]:
    content = b"".join(os.pread(file, ROW_BYTES, text * ROW_BYTES) for text in texts.tolist())
    return np.frombuffer(content, np.uint32).reshape(-1, PERMUTATIONS)
