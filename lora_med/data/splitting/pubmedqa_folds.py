"""PubMedQA's official split, reproduced: half of the 1,000 labeled questions are test, the rest ten folds of 50.

The authors' `split_dataset.py` (github.com/pubmedqa/pubmedqa) shuffles the PMIDs of each answer under `random.seed(0)`
in the order of `ori_pqal.json`, deals them into two halves, and the first half again into ten folds. What comes out is
compared with the SHA-256 of the official PMIDs, so no other split ever passes for the official one.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_med.data.outcome import Input
from lora_med.data.record import Question, Record
from lora_med.data.splitting.splits import Part, stratified
from lora_med.errors import DataError
from lora_med.files import read_json

ANSWERS = ("yes", "no", "maybe")
FOLDS = 10
GROUND_TRUTH = "test_ground_truth.json"
# SHA-256 of the PMIDs, sorted as text and joined by newlines.
ALL_SHA256 = "7a6c316c94747ae97a9f55b7d28908884db6bf7cf13fcce4b969943c9cb1cf94"
TEST_SHA256 = "406e3b89eff577ed38571eca5a5819734a6f49ac0437d171b6c64e5c3cd195f8"
REST_SHA256 = "e972a379009869e03bfce9c7b57d8acd319daa902b9f492d0b7d2e76642cb878"


@dataclass(frozen=True)
class Shares:
    """What decides a split: the official fold, and for what is not official the shares and their seed."""

    fold: int
    seed: int
    validation: float
    test: float


def fingerprint(pmids: Iterable[str]) -> str:
    """SHA-256 that names a set of PMIDs."""
    return hashlib.sha256("\n".join(sorted(pmids)).encode()).hexdigest()


def without_ground_truth(inputs: Sequence[Input]) -> list[Input]:
    """The inputs less `test_ground_truth.json`, which a glob may catch and which holds answers only."""
    return [item for item in inputs if not (isinstance(item, Path) and item.name == GROUND_TRUTH)]


def deal(answers: Mapping[str, str], folds: int, draw: random.Random) -> list[list[str]]:
    """PMIDs dealt into `folds` parts as the authors do it: by answer, shuffled, in slices of equal size rounded up.

    Where the last part comes out short, each other part gives it one PMID at random.
    """
    parts: list[list[str]] = [[] for _ in range(folds)]
    for answer in ANSWERS:
        pmids = [pmid for pmid, own in answers.items() if own == answer]
        draw.shuffle(pmids)
        size = math.ceil(len(pmids) / folds)
        for number, part in enumerate(parts):
            part += pmids[number * size :] if number == folds - 1 else pmids[number * size : (number + 1) * size]
    if len(parts[-1]) != len(parts[0]):
        for part in parts[:-1]:
            pmid = draw.choice(part)
            parts[-1].append(pmid)
            part.remove(pmid)
    return parts


def official(answers: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """`(test, ten folds)` of the labeled PMIDs in the order of `ori_pqal.json`."""
    draw = random.Random(0)
    rest, test = deal(answers, 2, draw)
    return test, deal({pmid: answers[pmid] for pmid in rest}, FOLDS, draw)


def with_test_places(answers: Mapping[str, str]) -> dict[str, str]:
    """The 500 items that are not test, set where they stand among all 1,000; unnamed places stand for the test items.

    Both halves have equally many of each answer, and the shuffle depends on places alone: so the folds follow without
    the test items.
    """
    full: dict[str, str] = {}
    draw = random.Random(0)
    for answer in ANSWERS:
        pmids = [pmid for pmid, own in answers.items() if own == answer]
        places = list(range(2 * len(pmids)))
        draw.shuffle(places)
        known = dict(zip(sorted(places[: len(pmids)]), pmids, strict=True))
        full |= {known.get(place, f"test:{answer}:{place}"): answer for place in range(2 * len(pmids))}
    return full


def official_parts(
    records: Sequence[Record], inputs: Sequence[Input], settings: Shares
) -> tuple[dict[str, Part], str] | None:
    """PMID -> part by the published split, and a line that says so; None if these items have none.

    Of all 1,000 labeled items the official 500 are test and one fold of the rest is validation. Where only the other
    500 are given, the fold is the official one, and a share of the other folds, equal in answers, stands in for the
    test. A `test_ground_truth.json` beside the file names the test items of any set.

    Raises:
        DataError: these are the 1,000, but in another order, so that the split cannot be told.
    """
    answers = {record.group: record.answer for record in records if isinstance(record, Question)}
    whole = fingerprint(answers)
    if whole == REST_SHA256:
        _, dealt = official(with_test_places(answers))
        return _own_test(records, dealt[settings.fold], settings)
    truth = _ground_truth(inputs)
    if whole == ALL_SHA256:
        test, dealt = official(answers)
        if fingerprint(test) == TEST_SHA256:
            parts: dict[str, Part] = dict.fromkeys(answers, "train")
            parts |= dict.fromkeys(dealt[settings.fold], "validation")
            parts |= dict.fromkeys(test, "test")
            return parts, f"official PubMedQA split: 500 test, validation is fold {settings.fold} of {FOLDS}"
        if fingerprint(truth) != TEST_SHA256:
            raise DataError(
                "the 1,000 PubMedQA items stand in another order than in ori_pqal.json, so their test part is unknown",
                where="data.paths",
                fix=f"give ori_pqal.json itself, or put {GROUND_TRUTH} beside your file",
            )
    return _named_test(records, truth, whole == ALL_SHA256, settings) if truth and truth < set(answers) else None


def _named_test(
    records: Sequence[Record], truth: set[str], whole: bool, settings: Shares
) -> tuple[dict[str, Part], str]:
    rest = [record for record in records if record.group not in truth]
    parts: dict[str, Part] = dict(stratified(rest, settings.seed, settings.validation, 0.0))
    parts |= dict.fromkeys(truth, "test")
    name = "official PubMedQA test" if whole else "test"
    return parts, (
        f"{name} by {GROUND_TRUTH}: {len(truth)} items; validation is {settings.validation:g} of the rest, stratified "
        f"by answer with seed {settings.seed}"
    )


def _own_test(records: Sequence[Record], fold: Sequence[str], settings: Shares) -> tuple[dict[str, Part], str]:
    validation = set(fold)
    rest = [record for record in records if record.group not in validation]
    parts: dict[str, Part] = dict(stratified(rest, settings.seed, 0.0, settings.test))
    parts |= dict.fromkeys(fold, "validation")
    tests = sum(part == "test" for part in parts.values())
    own = f"{tests} of the other folds stand in as test, drawn with seed {settings.seed}" if tests else "no test"
    return parts, (
        f"PubMedQA's 500 items that are not test: validation is official fold {settings.fold} of {FOLDS}; {own}; "
        "NOT the official test"
    )


def _ground_truth(inputs: Sequence[Input]) -> set[str]:
    folders = {item.parent for item in inputs if isinstance(item, Path)}
    found = sorted(folder / GROUND_TRUTH for folder in folders if (folder / GROUND_TRUTH).is_file())
    return set(map(str, read_json(found[0]))) if found else set()
