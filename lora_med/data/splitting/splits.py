"""Splits by group: the split a record belongs to does not depend on the order of rows; leakage.py decontaminates."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from lora_med.data.outcome import Input
from lora_med.data.record import Question, Record
from lora_med.errors import DataError

Part = Literal["train", "validation", "test"]
PARTS: dict[str, Part] = {"train": "train", "dev": "validation", "val": "validation", "test": "test"}
SHOWN_FILES = 5
WORDS = "train(?:ing)?|dev(?:el|elop|elopment)?|val(?:id|idation)?|test"
NAMED = re.compile(rf"({WORDS})(?:[_-]?set)?", re.IGNORECASE)
# As published: CDR_TrainingSet, NCBItestset_corpus, MTS-Dialog-TestSet-1; the word begins at no lower-case letter.
NAMED_WITHIN = re.compile(rf"(?<![a-z])(?i:({WORDS})(?:[_-]?set)?)(?![A-Za-z])")


def position(group: str, seed: int) -> float:
    """Where a group stands in [0, 1): its hash with the seed, so rows may be shuffled or added and it stays."""
    name = hashlib.sha256(f"{seed}\x1f{group}".encode()).digest()
    return int.from_bytes(name[:7], "big") / (1 << 56)


def part_of(group: str, seed: int, validation_share: float, test_share: float) -> Part:
    """The part of a group. Test is cut from one end and validation from the other: changing one share moves only it."""
    place = position(group, seed)
    if place < test_share:
        return "test"
    return "validation" if place >= 1.0 - validation_share else "train"


def stratified(records: Iterable[Record], seed: int, validation_share: float, test_share: float) -> dict[str, Part]:
    """Group -> part, each answer keeping its share of every part: within an answer, groups are ranked by `position`.

    The answer of a group is that of its first record; sizes are rounded per answer.
    """
    answers: dict[str, str] = {}
    for record in records:
        answers.setdefault(record.group, record.answer if isinstance(record, Question) else "")
    parts: dict[str, Part] = {}
    for answer in sorted(set(answers.values())):
        groups = sorted((group for group, own in answers.items() if own == answer), key=lambda g: position(g, seed))
        tests, validations = round(len(groups) * test_share), round(len(groups) * validation_share)
        for rank, group in enumerate(groups):
            parts[group] = "test" if rank < tests else "validation" if rank >= len(groups) - validations else "train"
    return parts


def named_parts(
    inputs: Sequence[Input], *, published: bool = False, dev: Part = "validation"
) -> dict[Part, list[Input]] | None:
    """The published split that file names tell (`train.jsonl`, `dev_set.json`, ...), or None.

    At least two parts must be there: one file `train.csv` alone is no split. The name must be the part's alone; with
    `published`, for sources known by their files' names, it may stand within. `dev` is the part that files of that
    name hold.

    Raises:
        DataError: files of two parts stand beside files of none; pooled, what is published as test would be trained on.
    """
    found: dict[Part, list[Input]] = {}
    others: list[Path] = []
    for item in inputs:
        part = _named_part(item.name.split(".")[0], published, dev) if isinstance(item, Path) else None
        if part is not None:
            found.setdefault(part, []).append(item)
        elif isinstance(item, Path):
            others.append(item)
    if len(found) < 2:
        return None
    if others:
        shown = ", ".join(path.name for path in others[:SHOWN_FILES]) + (", ..." if len(others) > SHOWN_FILES else "")
        raise DataError(
            f"files are named after the parts {', '.join(found)}, and {len(others)} after none: {shown}",
            where="data.paths",
            fix="name only the files of the parts, or rename the others after theirs",
        )
    return found


def _named_part(stem: str, published: bool, dev: Part) -> Part | None:
    if not published:
        match = NAMED.fullmatch(stem)
        words = {match[1].lower()} if match else set[str]()
    else:
        words = {match[1].lower() for match in NAMED_WITHIN.finditer(stem)}
    known: dict[str, Part] = {**PARTS, "dev": dev}
    parts: set[Part] = {part for word in words for begin, part in known.items() if word.startswith(begin)}
    return parts.pop() if len(parts) == 1 else None
