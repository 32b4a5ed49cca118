"""What decontamination compares, as tables of DuckDB: the facts of each record, leaks, and groups to move.

Each method gives what its counterpart in `splitting.leakage` gives in memory, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lora_med.data.reading import digest
from lora_med.data.record import Split
from lora_med.data.splitting.on_disk.array_links import ArrayLinks
from lora_med.data.splitting.on_disk.disk_table import DiskTable
from lora_med.data.splitting.on_disk.duckdb_connection import blocks, connect, insert
from lora_med.data.splitting.on_disk.signature_files import SignatureFiles
from lora_med.data.splitting.scanned import TRAINING_ORDER, Key, ScannedBatch
from lora_med.folders import PrivateFolder

FOLDER = "lora-med-corpus"
REASONS: tuple[str, ...] = ("blocked", "test_overlap", "leak", "near_duplicate")
KIND_OF_LEAK = "CASE kind WHEN 0 THEN 'leak' ELSE 'near_duplicate' END"
SPLIT = "CASE {} WHEN 0 THEN 'train' WHEN 1 THEN 'validation' ELSE 'test' END"
TABLES = """
    CREATE TABLE facts (item BIGINT, origin INTEGER, split TINYINT, uid VARCHAR, name VARCHAR,
        owner UBIGINT, content UBIGINT);  -- name is the group's, owner its digest
    CREATE TABLE forbidden (number BIGINT, origin INTEGER, split VARCHAR, uid VARCHAR, reason VARCHAR);
    CREATE TABLE members (item BIGINT, leader BIGINT);
    CREATE TABLE leaks (item BIGINT, kind TINYINT, rank BIGINT, last TINYINT);
    CREATE TABLE moved (name VARCHAR, owner UBIGINT, split TINYINT, first BIGINT);
"""
# A record in two sets alike leaks by the set that is met first; near-duplicates come after groups and contents.
LEAKS = """
    CREATE TEMP TABLE alike AS
    SELECT key, max(split) AS last, min(rank) AS rank FROM (
        SELECT owner AS key, split, 2 * item AS rank FROM facts
        UNION ALL SELECT content, split, 2 * item + 1 FROM facts
    ) GROUP BY key HAVING min(split) < max(split) AND max(split) IN ({fixed});
    CREATE TEMP TABLE near AS
    SELECT leader, max(split) AS last FROM members JOIN facts USING (item)
    GROUP BY leader HAVING min(split) < max(split) AND max(split) IN ({fixed});
    INSERT INTO leaks
    SELECT item, kind, rank, last FROM (
        SELECT item, 0 AS kind, rank, split, last FROM facts JOIN alike ON key = owner
        UNION ALL SELECT item, 0, rank, split, last FROM facts JOIN alike ON key = content
        UNION ALL SELECT item, 1, leader, split, last FROM members JOIN near USING (leader) JOIN facts USING (item)
    ) WHERE split < last
    QUALIFY row_number() OVER (PARTITION BY item ORDER BY kind, rank) = 1;
    DROP TABLE alike; DROP TABLE near;
"""
LISTED = f"""
    SELECT reason, split, last, count(*), list(uid ORDER BY position) FILTER (position <= {{shown}}) FROM (
        SELECT {KIND_OF_LEAK} AS reason, split, last, uid,
            row_number() OVER (PARTITION BY kind, split, last ORDER BY rank, item) AS position
        FROM leaks JOIN facts USING (item)
    ) GROUP BY reason, split, last
"""
# Numbered in the order of their names, so that the first of linked groups has the smallest name, as in memory.
TIED = """
    CREATE TEMP TABLE tied AS
    SELECT owner, name, row_number() OVER (ORDER BY name) - 1 AS number, first, split FROM (
        SELECT owner, any_value(name) AS name, min(item) AS first, arg_max(split, item) AS split
        FROM facts SEMI JOIN (SELECT owner FROM members JOIN facts USING (item)) USING (owner) GROUP BY owner
    );
    CREATE TEMP TABLE owners AS SELECT item, leader, number FROM members JOIN facts USING (item) JOIN tied USING (owner)
"""
TIES = """
    SELECT DISTINCT one.number, other.number FROM owners AS other JOIN owners AS one ON one.item = other.leader
    WHERE one.number <> other.number
"""
MOVES = """
    INSERT INTO moved
    SELECT own.name, own.owner, lead.split, own.first
    FROM led JOIN tied AS own USING (number) JOIN tied AS lead ON lead.number = led.leader
    WHERE own.split <> lead.split
"""
SIZES = """
    SELECT coalesce(moved.split, facts.split), count(*) FROM facts ANTI JOIN leaks USING (item)
    LEFT JOIN moved USING (owner) GROUP BY 1
"""
REMOVED = f"""
    SELECT origin, split, uid, reason FROM (
        SELECT 0 AS part, 0 AS kind, number AS rank, 0 AS item, origin, split, uid, reason FROM forbidden
        UNION ALL SELECT 1, kind, rank, item, origin, {SPLIT.format("split")}, uid, {KIND_OF_LEAK}
        FROM leaks JOIN facts USING (item)
    ) ORDER BY part, kind, rank, item
"""
MOVED = f"SELECT name, {SPLIT.format('split')} FROM moved ORDER BY first"

Leaking = dict[tuple[str, Split, Split], tuple[int, list[str]]]


def _numbers(digests: Iterable[int]) -> NDArray[np.uint64]:
    return np.fromiter(digests, np.uint64)


class Facts:
    """The facts of all scanned records, in a folder of its own that is deleted with the last table made from it.

    Raises:
        DependencyMissingError: DuckDB is not installed.
    """

    def __init__(self, batches: Iterable[ScannedBatch]) -> None:
        self._own = PrivateFolder(FOLDER)  # 0700: it holds uids
        self._folder = self._own.path
        self._connection = connect(self._folder)
        self._connection.execute(TABLES)
        self._signatures = SignatureFiles(self._folder)
        self._count = self._forbidden = 0
        for batch in batches:
            self._append(batch)

    def _append(self, batch: ScannedBatch) -> None:
        if batch.forbidden:
            numbers = range(self._forbidden, self._forbidden + len(batch.forbidden))
            origins, splits, uids = zip(*(key for key, _ in batch.forbidden), strict=True)
            reasons = [reason for _, reason in batch.forbidden]
            columns = {"number": numbers, "origin": origins, "split": splits, "uid": uids, "reason": reasons}
            insert(self._connection, "forbidden", columns)
            self._forbidden += len(batch.forbidden)
        if batch.seen:
            insert(
                self._connection,
                "facts",
                {
                    "item": range(self._count, self._count + len(batch.seen)),
                    "origin": (row.origin for row in batch.seen),
                    "split": (TRAINING_ORDER.index(row.split) for row in batch.seen),
                    "uid": (row.uid for row in batch.seen),
                    "name": (row.group for row in batch.seen),
                    "owner": _numbers(digest(f"group\x1f{row.group}") for row in batch.seen),
                    "content": _numbers(row.content for row in batch.seen),
                },
            )
            self._count += len(batch.seen)
        if batch.signatures is not None:
            self._signatures.append(batch.signatures)

    def splits(self) -> int:
        """How many splits have a record."""
        return self._number("SELECT count(DISTINCT split) FROM facts")

    def _number(self, query: str) -> int:
        [(number,)] = self._connection.execute(query).fetchall()
        return number

    def find_near_duplicates(self, similarity: float) -> int:
        """How many clusters of near-duplicates there are."""
        links = self._signatures.link(self._connection, similarity)
        for items, leaders in links.linked():
            insert(self._connection, "members", {"item": items, "leader": leaders})
        self._connection.execute("INSERT INTO members SELECT DISTINCT leader, leader FROM members")
        return self._number("SELECT count(*) FROM members WHERE item = leader")

    def find_leaks(self, fixed: frozenset[Split], shown: int) -> Leaking:
        """By reason, split and the split that is leaked: how many records leak, and the first `shown` uids."""
        ranks = ", ".join(str(rank) for rank, split in enumerate(TRAINING_ORDER) if split in fixed)
        self._connection.execute(LEAKS.format(fixed=ranks or "NULL"))
        rows = self._connection.execute(LISTED.format(shown=shown)).fetchall()
        return {
            (reason, TRAINING_ORDER[split], TRAINING_ORDER[last]): (count, uids)
            for reason, split, last, count, uids in rows
        }

    def find_ties(self) -> tuple[int, int]:
        """How many groups near-duplicates tie together at most, and how many groups there are; finds what moves."""
        self._connection.execute(TIED)
        links = ArrayLinks(self._folder / "ties", self._number("SELECT count(*) FROM tied"))
        for leaders, others in blocks(self._connection, TIES):
            links.join(leaders, others)
        self._connection.execute("CREATE TEMP TABLE led (number BIGINT, leader BIGINT)")
        for numbers, leaders in links.linked():
            insert(self._connection, "led", {"number": numbers, "leader": leaders})
        self._connection.execute(MOVES)
        followers = "SELECT count(*) AS tied FROM led GROUP BY leader"
        largest = 1 + self._number(f"SELECT coalesce(max(tied), 0) FROM ({followers})")
        return largest, self._number("SELECT count(DISTINCT owner) FROM facts")

    def sizes(self) -> dict[Split, int]:
        """How many records each split has, without the leaks and with the moves that were found."""
        sizes = dict(cast(list[tuple[int, int]], self._connection.execute(SIZES).fetchall()))
        return {split: sizes.get(rank, 0) for rank, split in enumerate(TRAINING_ORDER)}

    def tables(self) -> tuple[DiskTable[Key, str], DiskTable[str, Split]]:
        """The reason of each removed record, and the new split of each moved group; everything else is deleted."""
        paths = [self._folder / name for name in ("removed.parquet", "moved.parquet")]
        for query, path in zip((REMOVED, MOVED), paths, strict=True):
            self._connection.execute(
                "SET preserve_insertion_order = true; "
                f"COPY ({query}) TO '{str(path).replace(chr(39), 2 * chr(39))}' (FORMAT parquet)"
            )
        self.close()
        removed = DiskTable(paths[0], REASONS, lambda origin, split, uid: (origin, split, uid), self._own)
        return removed, DiskTable(paths[1], TRAINING_ORDER, lambda name: name, self._own)

    def close(self) -> None:
        """End the work: what only it needs is deleted."""
        self._connection.close()
        self._signatures.close()
        for path in self._folder.iterdir():
            if path.suffix != ".parquet" and path.is_file():
                path.unlink()
