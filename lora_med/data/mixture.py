"""Several sources in one training set, by weight: seeded, over train splits only, with the resulting shares.

The two strategies have their names from datasets.interleave_datasets. With `first_exhausted` no record is repeated, and
the source that is shortest for its weight is used up. With `all_exhausted` no record is left out, and shorter sources
repeat.
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
    """One source's contribution: `rows` of its `available` records, a `share` of the mixture."""

    name: str
    weight: float
    available: int
    rows: int
    share: float


def mix(ingredients: Sequence[Ingredient], strategy: Strategy, seed: int) -> tuple[list[Record], list[Mixed]]:
    """The shuffled mixture, and the contribution of each source.

    Raises:
        DataError: a source has nothing to train on.
    """
    for ingredient in ingredients:
        if not ingredient.records:
            raise DataError(f"the source {ingredient.name!r} has no training record to mix in", where="data.mix")
    weights = sum(ingredient.weight for ingredient in ingredients)
    choose = min if strategy == "first_exhausted" else max
    total = choose(len(ingredient.records) * weights / ingredient.weight for ingredient in ingredients)
    draw = random.Random(seed)
    records: list[Record] = []
    counts: list[int] = []
    for ingredient in ingredients:
        count = round(total * ingredient.weight / weights)
        if strategy == "first_exhausted":
            count = min(count, len(ingredient.records))
        repeats, rest = divmod(count, len(ingredient.records))
        counts.append(count)
        records += [*ingredient.records] * repeats + draw.sample(list(ingredient.records), rest)
    draw.shuffle(records)
    shares = [
        Mixed(ingredient.name, ingredient.weight, len(ingredient.records), count, round(count / len(records), 4))
        for ingredient, count in zip(ingredients, counts, strict=True)
    ]
    return records, shares
