"""Several sources in one training set, by weight: seeded, over train parts only, with the shares that came out.

Names of the two strategies are those of datasets.interleave_datasets: with `first_exhausted` no record is repeated and
the source that is shortest for its weight is used up; with `all_exhausted` none is left out and shorter ones repeat.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_med.data.record import Record
from lora_med.errors import DataError

Strategy = Literal["first_exhausted", "all_exhausted"]


@dataclass(frozen=True)
class Ingredient:
    """One source's training records and the share it is to have, relative to the others' weights."""

    name: str
    weight: float
    records: Sequence[Record]


@dataclass(frozen=True)
class Mixed:
    """What one source gave: `rows` of its `available` records, which is `share` of the whole."""

    name: str
    weight: float
    available: int
    rows: int
    share: float


def mix(ingredients: Sequence[Ingredient], strategy: Strategy, seed: int) -> tuple[list[Record], list[Mixed]]:
    """The mixture, shuffled, and what each source gave.

    Raises:
        DataError: a source has nothing to train on.
    """
    for one in ingredients:
        if not one.records:
            raise DataError(f"the source {one.name!r} has no training record to mix in", where="data.mix")
    whole = sum(one.weight for one in ingredients)
    choose = min if strategy == "first_exhausted" else max
    total = choose(len(one.records) * whole / one.weight for one in ingredients)
    draw = random.Random(seed)
    records: list[Record] = []
    counts: list[int] = []
    for one in ingredients:
        count = round(total * one.weight / whole)
        if strategy == "first_exhausted":
            count = min(count, len(one.records))
        repeats, rest = divmod(count, len(one.records))
        counts.append(count)
        records += [*one.records] * repeats + draw.sample(list(one.records), rest)
    draw.shuffle(records)
    shares = [
        Mixed(one.name, one.weight, len(one.records), count, round(count / len(records), 4))
        for one, count in zip(ingredients, counts, strict=True)
    ]
    return records, shares
