"""Which steps of many files stay: the newest version of each article, and the first record of equal content.

Of few steps the numbers are compared in memory, of more in DuckDB; the result is the same. Only the articles that occur
more than once are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_med.data.scanning.scan_files import DELETION, NO_KEY, RECORD, Scan
from lora_med.data.splitting.on_disk.duckdb_connection import blocks, connect, insert, is_installed

# States of a step. CURRENT: a record that stays, or a drop that counts under its own reason. SILENT: a deletion.
CURRENT, SUPERSEDED, DELETED, DUPLICATE, SILENT = range(5)
DELETES = -1  # the version of a deletion
REPEATED_KEYS = """
    SELECT key, step, version FROM events SEMI JOIN
    (SELECT key FROM events GROUP BY key HAVING count(*) > 1) USING (key) ORDER BY key, step
"""
LATER_CONTENTS = """
    SELECT step FROM contents JOIN
    (SELECT content, min(step) AS first FROM contents GROUP BY content HAVING count(*) > 1) USING (content)
    WHERE step > first
"""
States = NDArray[np.uint8]
Columns = list[NDArray[Any]]


def states_of(scans: Sequence[Scan], folder: Path, held: int) -> list[States]:
    """The state of each step of each scan, in one byte.

    Args:
        held: of more steps than this the numbers are compared in DuckDB, if it is installed, in files of `folder`.
    """
    sizes = [sum(len(steps) for (steps,) in scan.columns("step")) for scan in scans]
    states = np.zeros(sum(sizes), np.uint8)
    compare = _OnDisk(folder) if len(states) > held and is_installed() else _InMemory()
    for block in compare.repeated_keys(_events(scans, states)):
        for step, state in _losing(block):
            states[step] = state
    for steps in compare.later_contents(_contents(scans, states)):
        states[steps] = DUPLICATE
    compare.close()
    return np.split(states, np.cumsum(sizes)[:-1]) if sizes else []


def _events(scans: Sequence[Scan], states: States) -> Iterator[Columns]:
    """Key, number and version of entries and deletions; marks deletions."""
    start = 0
    for scan in scans:
        for steps, keys, versions in scan.columns("step", "key", "version"):
            numbers = np.arange(start, start + len(steps))
            start += len(steps)
            is_deletion = steps == DELETION
            states[numbers[is_deletion]] = SILENT
            has_key = keys != NO_KEY
            versions = np.where(is_deletion, DELETES, versions)
            yield [keys[has_key], numbers[has_key], versions[has_key]]


def _contents(scans: Sequence[Scan], states: States) -> Iterator[Columns]:
    """Content and number of the records that are current."""
    start = 0
    for scan in scans:
        for steps, contents in scan.columns("step", "content"):
            numbers = np.arange(start, start + len(steps))
            start += len(steps)
            stays = (steps == RECORD) & (states[numbers] == CURRENT)
            yield [contents[stays], numbers[stays]]


def _losing(events: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """The steps of entries that do not stay, with their state; `events` are sorted by key, then by step.

    The highest version wins, at equal versions the later entry. After a deletion any entry wins.
    """
    for _, group in groupby(events, key=itemgetter(0)):
        current = newest = NO_KEY
        is_deleted = False
        for _, step, version in group:
            if version == DELETES:
                is_deleted = current != NO_KEY
            elif current == NO_KEY or is_deleted or version >= newest:
                if current != NO_KEY:
                    yield current, SUPERSEDED
                current, newest, is_deleted = step, max(1, version), False
            else:
                yield step, SUPERSEDED
        if is_deleted:
            yield current, DELETED


class _InMemory:
    """The comparison of a few hundred thousand numbers."""

    def repeated_keys(self, events: Iterable[Columns]) -> Iterator[Iterable[tuple[int, int, int]]]:
        """The events of keys that occur more than once, by key and step."""
        columns = _joined(events, 3)
        order = np.argsort(columns[0], kind="stable")
        keys, steps, versions = (column[order] for column in columns)
        is_equal = keys[1:] == keys[:-1]
        repeated = np.concatenate([is_equal, [False]]) | np.concatenate([[False], is_equal]) if len(keys) else []
        yield zip(*(column[repeated].tolist() for column in (keys, steps, versions)), strict=True)

    def later_contents(self, contents: Iterable[Columns]) -> Iterator[NDArray[np.int64]]:
        """The steps of contents that an earlier step has."""
        own, steps = _joined(contents, 2)
        first = np.unique(own, return_index=True)[1]
        yield np.delete(steps, first)

    def close(self) -> None:
        """Nothing is open."""


class _OnDisk:
    """The comparison of any number of numbers, in DuckDB."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._connection = connect(folder)

    def repeated_keys(self, events: Iterable[Columns]) -> Iterator[Iterable[tuple[int, int, int]]]:
        """As `_InMemory.repeated_keys`."""
        self._fill("events", {"key": "BIGINT", "step": "BIGINT", "version": "INTEGER"}, events)
        yield (
            event
            for columns in blocks(self._connection, REPEATED_KEYS)
            for event in zip(*(column.tolist() for column in columns), strict=True)
        )

    def later_contents(self, contents: Iterable[Columns]) -> Iterator[NDArray[np.int64]]:
        """As `_InMemory.later_contents`."""
        self._connection.execute("DROP TABLE events")
        self._fill("contents", {"content": "UBIGINT", "step": "BIGINT"}, contents)
        for (steps,) in blocks(self._connection, LATER_CONTENTS):
            yield steps

    def _fill(self, table: str, types: dict[str, str], columns: Iterable[Columns]) -> None:
        self._connection.execute(
            f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in types.items())})"
        )
        for batch in columns:
            insert(self._connection, table, dict(zip(types, batch, strict=True)))

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def _joined(batches: Iterable[Columns], count: int) -> Columns:
    columns = list(zip(*batches, strict=True)) or [(np.empty(0, np.int64),)] * count
    return [np.concatenate(column) for column in columns]
