"""Splits by group: the split a record belongs to does not depend on the order of rows; leakage.py decontaminates."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_med.data.outcome import Input
from lora_med.data.record import Question, Record, Split
from lora_med.errors import DataError

SPLIT_WORDS: dict[str, Split] = {"train": "train", "dev": "validation", "val": "validation", "test": "test"}
SHOWN_FILES = 5
WORDS = "train(?:ing)?|dev(?:el|elop|elopment)?|val(?:id|idation)?|test"
NAMED = re.compile(rf"({WORDS})(?:[_-]?set)?", re.IGNORECASE)
# As published: CDR_TrainingSet, NCBItestset_corpus, MTS-Dialog-TestSet-1; the word begins at no lower-case letter.
NAMED_WITHIN = re.compile(rf"(?<![a-z])(?i:({WORDS})(?:[_-]?set)?)(?![A-Za-z])")


@dataclass(frozen=True)
class SplitShares:
    """What decides a split: the official fold, and for what is not official the shares and their seed."""

    fold: int
    seed: int
    validation: float
    test: float


def position(group: str, seed: int) -> float:
    """The position of a group in [0, 1): its hash with the seed. Shuffling or adding rows does not change it."""
    name = hashlib.sha256(f"{seed}\x1f{group}".encode()).digest()
    return int.from_bytes(name[:7], "big") / (1 << 56)


def split_of_group(group: str, seed: int, validation_share: float, test_share: float) -> Split:
    """The split of a group. Test is cut from one end, validation from the other: changing one share moves only it."""
    point = position(group, seed)
    if point < test_share:
        return "test"
    return "validation" if point >= 1.0 - validation_share else "train"


def stratified(records: Iterable[Record], seed: int, validation_share: float, test_share: float) -> dict[str, Split]:
    """Group -> split, each answer keeping its share of every split: within an answer, groups are ranked by `position`.

    The answer of a group is that of its first record; sizes are rounded per answer.
    """
    answers: dict[str, str] = {}
    for record in records:
        answers.setdefault(record.group, record.answer if isinstance(record, Question) else "")
    splits: dict[str, Split] = {}
    for answer in sorted(set(answers.values())):
        groups = sorted((group for group, own in answers.items() if own == answer), key=lambda g: position(g, seed))
        tests, validations = round(len(groups) * test_share), round(len(groups) * validation_share)
        for rank, group in enumerate(groups):
            splits[group] = "test" if rank < tests else "validation" if rank >= len(groups) - validations else "train"
    return splits


def splits_by_file_name(
    inputs: Sequence[Input], *, within: bool = False, dev: Split = "validation"
) -> dict[Split, list[Input]] | None:
    """The published split by file names (`train.jsonl`, `dev_set.json`, ...), or None.

    At least two splits are needed: one file `train.csv` alone is no split. A file's full name must be that of its
    split. With `within`, for sources known by their files' names, the split's name may be inside it. `dev` is the split
    that files of that name hold.

    Raises:
        DataError: files of two splits are beside files of none; pooled, the published test would be trained on.
    """
    inputs_by_split: dict[Split, list[Input]] = {}
    others: list[Path] = []
    for item in inputs:
        split = _split_by_name(item.name.split(".")[0], dev, within=within) if isinstance(item, Path) else None
        if split is not None:
            inputs_by_split.setdefault(split, []).append(item)
        elif isinstance(item, Path):
            others.append(item)
    if len(inputs_by_split) < 2:
        return None
    if others:
        shown = ", ".join(path.name for path in others[:SHOWN_FILES]) + (", ..." if len(others) > SHOWN_FILES else "")
        raise DataError(
            f"files are named after the splits {', '.join(inputs_by_split)}, and {len(others)} after none: {shown}",
            where="data.paths",
            fix="name only the files of the splits, or rename the others after theirs",
        )
    return inputs_by_split


def _split_by_name(stem: str, dev: Split, *, within: bool) -> Split | None:
    if not within:
        match = NAMED.fullmatch(stem)
        words = {match[1].lower()} if match else set[str]()
    else:
        words = {match[1].lower() for match in NAMED_WITHIN.finditer(stem)}
    split_words: dict[str, Split] = {**SPLIT_WORDS, "dev": dev}
    splits: set[Split] = {split for word in words for begin, split in split_words.items() if word.startswith(begin)}
    return splits.pop() if len(splits) == 1 else None
