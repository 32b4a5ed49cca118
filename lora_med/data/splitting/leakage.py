"""Decontamination: no record leaks from a held-out split into training.

One scan over the records of all splits finds four kinds of leak:
- identifiers on a block-list;
- runs of words shared with a test file;
- a group or a content in two splits;
- near-duplicates in two splits.
Where lora_med makes the splits, the groups of near-duplicates go into one split together. Where the splits are
published, a leak is an error, or it is removed from the split that is nearer to training.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from lora_med.data.reading import content, digest
from lora_med.data.record import Record, Split, asked_of, shown_uid
from lora_med.data.splitting.block_lists import BlockList, is_blocked, pmid_of
from lora_med.data.splitting.near_duplicates import BATCH, clusters, signatures
from lora_med.data.splitting.on_disk.duckdb_connection import INSTALL, is_installed
from lora_med.data.splitting.on_disk.facts import Facts, Leaking
from lora_med.data.splitting.overlap_with_tests import TestText, record_words
from lora_med.data.splitting.scanned import TRAINING_ORDER, Key, RecordDigest, Scanned, ScannedBatch
from lora_med.data.splitting.union_find import Links
from lora_med.errors import DataError

SHOWN_UIDS = 5
LISTED_UIDS = 1000
LARGEST_SHARE, LARGEST_GROUPS = 0.1, 20  # of the groups one cluster may join before something else is wrong

HELD = 200_000  # records at most whose facts and signatures are in memory, about 1.6 KB each; of more they are on disk
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """How splits are decontaminated; `similarity` is that of near-duplicates, 0 for none.

    Block-lists and test files remove nothing from the splits in `may_hold_test_items`: they guard training.
    """

    leaks: Literal["error", "drop"] = "error"
    similarity: float = 0.0
    block_lists: tuple[BlockList, ...] = ()
    test_files: tuple[TestText, ...] = ()
    may_hold_test_items: frozenset[Split] = frozenset({"test"})


@dataclass(frozen=True)
class Decontamination:
    """The result: the reason for each removed record, the new split of each moved group, and the rules.

    A record is identified by its source's index in a mixture (0 for the first), its split and its uid. `sizes` are
    those of the splits afterwards. Reasons: blocked, test_overlap, leak, near_duplicate.
    """

    rules: Rules
    removed: Mapping[Key, str] = field(default_factory=dict)
    moved: Mapping[str, Split] = field(default_factory=dict)
    sizes: dict[Split, int] = field(default_factory=dict)
    clusters: int = 0
    access: str | None = "open"  # of the records: decides how their uids are shown

    def counts(self, split: Split | None = None) -> dict[str, int]:
        """How many records were removed for each reason, from all splits or from one."""
        reasons = (reason for (_, from_split, _), reason in self.removed.items() if split in (None, from_split))
        return dict(sorted(Counter(reasons).items()))

    def final_split(self, record: Record | RecordDigest, split: Split, origin: int = 0) -> Split | None:
        """The split a record ends in, None if it was removed."""
        return None if (origin, split, record.uid) in self.removed else self.moved.get(group_of(record), split)

    def as_json(self) -> dict[str, Any]:
        """The card's entry: rules with the hashes of their files, counts, and up to 1,000 uids for each reason."""
        uids: dict[str, list[str]] = defaultdict(list)
        for (_, _, uid), reason in self.removed.items():
            if len(uids[reason]) < LISTED_UIDS:
                uids[reason].append(shown_uid(uid, self.access))
        return {
            "block_lists": [
                {"name": item.name, "sha256": item.sha256, "ids": len(item.ids)} for item in self.rules.block_lists
            ],
            "test_files": [
                {"name": item.name, "sha256": item.sha256, "texts": item.texts, "too_short": item.short}
                for item in self.rules.test_files
            ],
            "near_duplicate_similarity": self.rules.similarity,
            "near_duplicate_clusters": self.clusters,
            "groups_moved": len(self.moved),
            "removed": self.counts(),
            "removed_uids": dict(sorted(uids.items())),
        }


def group_of(record: Record | RecordDigest) -> str:
    """The unit that must never straddle splits, comparable across sources: a PMID is the same everywhere."""
    return pmid_of(record) or f"{record.source}\x1f{record.group}"


def decontaminate(
    assigned: Iterable[tuple[int, Split, Record | RecordDigest]],
    rules: Rules,
    fixed: frozenset[Split],
    access_of: Callable[[], str | None] = lambda: "open",
    held: int = HELD,
) -> Decontamination:
    """What has to be removed or moved so that no split leaks.

    Args:
        assigned: each record with the index of its source in a mixture (else 0) and its split; iterated once.
        fixed: the splits that are published, which nothing may move into or out of.
        access_of: gives the class of the records once all are read: an error or a report shows uids as it allows.
        held: how many records' facts are in memory at most. With more, and with DuckDB, they are in a temporary folder
            (about 1 KB a record); the result is the same.

    Raises:
        DataError: a leak between published splits, with counts and uids, unless `rules.leaks` is `drop`; or
            near-duplicates that would join more than a tenth of all groups.
    """
    batches = _scanned(assigned, rules)
    first: deque[ScannedBatch] = deque()
    while (batch := next(batches, None)) is not None:
        first.append(batch)
        if sum(len(batch.seen) + len(batch.forbidden) for batch in first) > held:
            if is_installed():
                return _on_disk(_all(first, batches), rules, fixed, access_of)
            logger.warning(
                "more than %s records, and DuckDB is not installed: about 1.6 KB of each are in memory; "
                "after %s they are on disk",
                f"{held:,}",
                INSTALL,
            )
            break
    return _in_memory([*first, *batches], rules, fixed, access_of)


def _all(first: deque[ScannedBatch], rest: Iterator[ScannedBatch]) -> Iterator[ScannedBatch]:
    while first:
        yield first.popleft()  # it leaves memory when it is written
    yield from rest


def _scanned(assigned: Iterable[tuple[int, Split, Record | RecordDigest]], rules: Rules) -> Iterator[ScannedBatch]:
    source = iter(assigned)
    for batch in iter(lambda: list(islice(source, BATCH)), []):
        forbidden: list[tuple[Key, str]] = []
        seen: list[Scanned] = []
        texts: list[str] = []
        marks: list[NDArray[np.uint32]] = []  # of records that were scanned before
        for origin, split, record in batch:
            digested = record if isinstance(record, RecordDigest) else None
            reason = None
            if split not in rules.may_hold_test_items:
                reason = digested.forbidden if digested else forbidden_reason(cast(Record, record), rules)
            if reason is not None:
                forbidden.append(((origin, split, record.uid), reason))
                continue
            own = digested.content if digested else content(cast(Record, record))
            seen.append(Scanned(origin, split, record.uid, group_of(record), own))
            if rules.similarity and digested:
                marks.append(digested.signature)
            elif rules.similarity:
                texts.append(asked_of(cast(Record, record)))
        found = np.stack(marks) if marks else signatures(texts) if rules.similarity else None
        yield ScannedBatch(forbidden, seen, found)


def _may_move(rules: Rules, fixed: frozenset[Split]) -> bool:
    return rules.leaks == "error" and not fixed.issuperset(TRAINING_ORDER[:2])


def _in_memory(
    batches: Sequence[ScannedBatch], rules: Rules, fixed: frozenset[Split], access_of: Callable[[], str | None]
) -> Decontamination:
    removed = {key: reason for batch in batches for key, reason in batch.forbidden}
    seen = [scanned for batch in batches for scanned in batch.seen]
    marks = [batch.signatures for batch in batches if batch.signatures is not None]
    duplicates = (
        clusters(np.concatenate(marks), rules.similarity)
        if marks and len({scanned.split for scanned in seen}) > 1
        else []
    )
    leaks = _leaks(seen, duplicates, fixed if rules.leaks == "error" else frozenset(TRAINING_ORDER))
    if leaks and rules.leaks == "error":
        listed: dict[tuple[str, Split, Split], list[str]] = defaultdict(list)
        for index, (reason, other) in leaks.items():
            listed[reason, seen[index].split, other].append(seen[index].uid)
        raise _refusal({leak: (len(uids), uids[:SHOWN_UIDS]) for leak, uids in listed.items()}, access_of())
    removed |= {seen[index].key: reason for index, (reason, _) in leaks.items()}
    moved = _moves(seen, duplicates) if _may_move(rules, fixed) else {}
    sizes: Counter[Split] = Counter(
        moved.get(scanned.group, scanned.split) for scanned in seen if scanned.key not in removed
    )
    ordered: dict[Split, int] = {split: sizes[split] for split in TRAINING_ORDER}
    return Decontamination(rules, removed, moved, ordered, len(duplicates), access_of())


def _on_disk(
    batches: Iterable[ScannedBatch], rules: Rules, fixed: frozenset[Split], access_of: Callable[[], str | None]
) -> Decontamination:
    """As `_in_memory`, step by step."""
    with closing(Facts(batches)) as facts:
        found = facts.find_near_duplicates(rules.similarity) if rules.similarity and facts.splits() > 1 else 0
        leaks = facts.find_leaks(fixed if rules.leaks == "error" else frozenset(TRAINING_ORDER), SHOWN_UIDS)
        if leaks and rules.leaks == "error":
            raise _refusal(leaks, access_of())
        if found and _may_move(rules, fixed):
            _refuse_large_ties(*facts.find_ties())
        sizes = facts.sizes()
        removed, moved = facts.tables()
    return Decontamination(rules, removed, moved, sizes, found, access_of())


def forbidden_reason(record: Record, rules: Rules) -> str | None:
    """Why the record may not be trained on: `blocked`, `test_overlap`, or None."""
    if is_blocked(record, rules.block_lists):
        return "blocked"
    if rules.test_files:
        words = record_words(record)
        if any(test.shares(words) for test in rules.test_files):
            return "test_overlap"
    return None


def _leaks(
    seen: Sequence[Scanned], duplicates: Sequence[Sequence[int]], fixed: frozenset[Split]
) -> dict[int, tuple[str, Split]]:
    """Index of each record that resembles a record of a later, fixed split -> the reason, and that split."""
    alike: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, scanned in enumerate(seen):
        alike["leak", digest(f"group\x1f{scanned.group}")].append(index)
        alike["leak", scanned.content].append(index)
    for number, members in enumerate(duplicates):
        alike["near_duplicate", number] = list(members)
    leaks: dict[int, tuple[str, Split]] = {}
    for (reason, _), members in alike.items():
        last = max((seen[index] for index in members), key=lambda scanned: TRAINING_ORDER.index(scanned.split)).split
        for index in members if last in fixed else ():
            if seen[index].split != last:
                leaks.setdefault(index, (reason, last))
    return leaks


def _refusal(leaks: Leaking, access: str | None) -> DataError:
    what = {"leak": "share a group or content with", "near_duplicate": "are near-duplicates of"}
    splits = [
        f"{count} of {split} {what[reason]} {other} ({', '.join(shown_uid(uid, access) for uid in uids)}"
        + (", ...)" if count > len(uids) else ")")
        for (reason, split, other), (count, uids) in sorted(leaks.items())
    ]
    return DataError(
        f"the splits overlap by group or content: {'; '.join(splits)}",
        where="data.paths",
        fix="data.leaks=drop removes them from the split nearer to training: what was trained on cannot test",
    )


def _moves(seen: Sequence[Scanned], duplicates: Sequence[Sequence[int]]) -> dict[str, Split]:
    """Group -> new split for each group with near-duplicates in a group of another split."""
    if not duplicates:
        return {}
    links: Links[str] = Links()
    for members in duplicates:
        for index in members[1:]:
            links.join(seen[members[0]].group, seen[index].group)
    splits: dict[str, Split] = {scanned.group: scanned.split for scanned in seen}
    sizes = Counter(map(links.leader, splits))
    _refuse_large_ties(sizes.most_common(1)[0][1], len(splits))
    moved: dict[str, Split] = {}
    for group, split in splits.items():
        first = links.leader(group)
        if splits[first] != split:
            moved[group] = splits[first]
    return moved


def _refuse_large_ties(largest: int, groups: int) -> None:
    if largest > max(LARGEST_GROUPS, LARGEST_SHARE * groups):
        raise DataError(
            f"near-duplicates tie {largest:,} of {groups:,} groups together: no split can separate them",
            where="data.near_duplicate_similarity",
            fix="raise it, or data.leaks=drop: then records that resemble a held-out record leave training instead",
        )
