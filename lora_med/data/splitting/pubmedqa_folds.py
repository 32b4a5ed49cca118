"""PubMedQA's official split, reproduced: half of the 1,000 labeled questions are test, the rest ten folds of 50.

The authors' `split_dataset.py` (github.com/pubmedqa/pubmedqa) shuffles the PMIDs of each answer under `random.seed(0)`,
in the order of `ori_pqal.json`. It deals them into two halves, and the first half again into ten folds. The result is
compared with the SHA-256 of the official PMIDs, so no other split ever passes for the official one.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lora_med.data.outcome import Input
from lora_med.data.record import Question, Record, Split
from lora_med.data.splitting.splits import SplitShares, stratified
from lora_med.errors import DataError
from lora_med.files import read_json

ANSWERS = ("yes", "no", "maybe")
FOLDS = 10
GROUND_TRUTH = "test_ground_truth.json"
# SHA-256 of the PMIDs, sorted as text and joined by newlines.
ALL_SHA256 = "7a6c316c94747ae97a9f55b7d28908884db6bf7cf13fcce4b969943c9cb1cf94"
TEST_SHA256 = "406e3b89eff577ed38571eca5a5819734a6f49ac0437d171b6c64e5c3cd195f8"
REST_SHA256 = "e972a379009869e03bfce9c7b57d8acd319daa902b9f492d0b7d2e76642cb878"


def fingerprint(pmids: Iterable[str]) -> str:
    """SHA-256 that names a set of PMIDs."""
    return hashlib.sha256("\n".join(sorted(pmids)).encode()).hexdigest()


def deal(answers: Mapping[str, str], folds: int, draw: random.Random) -> list[list[str]]:
    """PMIDs dealt into `folds` lists as the authors do it: by answer, shuffled, in slices of equal size rounded up.

    Where the last pile is short, each other pile gives it one PMID at random.
    """
    piles: list[list[str]] = [[] for _ in range(folds)]
    for answer in ANSWERS:
        pmids = [pmid for pmid, own in answers.items() if own == answer]
        draw.shuffle(pmids)
        size = math.ceil(len(pmids) / folds)
        for number, pile in enumerate(piles):
            pile += pmids[number * size :] if number == folds - 1 else pmids[number * size : (number + 1) * size]
    if len(piles[-1]) != len(piles[0]):
        for pile in piles[:-1]:
            pmid = draw.choice(pile)
            piles[-1].append(pmid)
            pile.remove(pmid)
    return piles


def official(answers: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """`(test, ten folds)` of the labeled PMIDs in the order of `ori_pqal.json`."""
    draw = random.Random(0)
    rest, test = deal(answers, 2, draw)
    return test, deal({pmid: answers[pmid] for pmid in rest}, FOLDS, draw)


def with_unnamed_test_items(answers: Mapping[str, str]) -> dict[str, str]:
    """The 500 items that are not test, at their positions among all 1,000; placeholders represent the test items.

    Both halves have equally many of each answer, and the shuffle depends on positions alone. So the folds follow
    without the test items.
    """
    full: dict[str, str] = {}
    draw = random.Random(0)
    for answer in ANSWERS:
        pmids = [pmid for pmid, own in answers.items() if own == answer]
        positions = list(range(2 * len(pmids)))
        draw.shuffle(positions)
        pmid_at = dict(zip(sorted(positions[: len(pmids)]), pmids, strict=True))
        full |= {pmid_at.get(position, f"test:{answer}:{position}"): answer for position in range(2 * len(pmids))}
    return full


def official_splits(
    records: Sequence[Record], inputs: Sequence[Input], shares: SplitShares
) -> tuple[dict[str, Split], str, frozenset[Split]] | None:
    """PMID -> split by the published split, a line about it, and which are published; None if these items have none.

    Of all 1,000 labeled items the official 500 are test and one fold of the rest is validation. Where the input has
    only the other 500, the fold is the official one. A share of the other folds, equal in answers, then replaces the
    test. A `test_ground_truth.json` beside the file names the test items of any set.

    Raises:
        DataError: these are the 1,000, but in another order, so the split is unknown.
    """
    answers = {record.group: record.answer for record in records if isinstance(record, Question)}
    items_sha256 = fingerprint(answers)
    if items_sha256 == REST_SHA256:
        _, dealt = official(with_unnamed_test_items(answers))
        return _own_test(records, dealt[shares.fold], shares)
    truth = _ground_truth(inputs)
    if items_sha256 == ALL_SHA256:
        test, dealt = official(answers)
        if fingerprint(test) == TEST_SHA256:
            splits: dict[str, Split] = dict.fromkeys(answers, "train")
            splits |= dict.fromkeys(dealt[shares.fold], "validation")
            splits |= dict.fromkeys(test, "test")
            line = f"official PubMedQA split: 500 test, validation is fold {shares.fold} of {FOLDS}"
            return splits, line, frozenset({"validation", "test"})
        if fingerprint(truth) != TEST_SHA256:
            raise DataError(
                "the 1,000 PubMedQA items are in another order than in ori_pqal.json, so their test split is unknown",
                where="data.paths",
                fix=f"give ori_pqal.json itself, or put {GROUND_TRUTH} beside your file",
            )
    return _named_test(records, truth, items_sha256 == ALL_SHA256, shares) if truth and truth < set(answers) else None


def _named_test(
    records: Sequence[Record], truth: set[str], is_all: bool, shares: SplitShares
) -> tuple[dict[str, Split], str, frozenset[Split]]:
    rest = [record for record in records if record.group not in truth]
    splits: dict[str, Split] = dict(stratified(rest, shares.seed, shares.validation, 0.0))
    splits |= dict.fromkeys(truth, "test")
    name = "official PubMedQA test" if is_all else "test"
    line = (
        f"{name} by {GROUND_TRUTH}: {len(truth)} items; validation is {shares.validation:g} of the rest, stratified "
        f"by answer with seed {shares.seed}"
    )
    return splits, line, frozenset({"test"})


def _own_test(
    records: Sequence[Record], fold: Sequence[str], shares: SplitShares
) -> tuple[dict[str, Split], str, frozenset[Split]]:
    validation = set(fold)
    rest = [record for record in records if record.group not in validation]
    splits: dict[str, Split] = dict(stratified(rest, shares.seed, 0.0, shares.test))
    splits |= dict.fromkeys(fold, "validation")
    tests = sum(split == "test" for split in splits.values())
    own = f"{tests} of the other folds stand in as test, drawn with seed {shares.seed}" if tests else "no test"
    line = (
        f"PubMedQA's 500 items that are not test: validation is official fold {shares.fold} of {FOLDS}; {own}; "
        "NOT the official test"
    )
    return splits, line, frozenset({"validation"})


def _ground_truth(inputs: Sequence[Input]) -> set[str]:
    folders = {item.parent for item in inputs if isinstance(item, Path)}
    files = sorted(folder / GROUND_TRUTH for folder in folders if (folder / GROUND_TRUTH).is_file())
    return set(map(str, read_json(files[0]))) if files else set()
