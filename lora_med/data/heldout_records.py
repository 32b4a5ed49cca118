"""Held-out records with their source, split and access class, which decides who may read them, in one value.

A list of records knows no access class. Evaluation therefore takes this value and nothing else.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from lora_med.data.access import Access, strictest
from lora_med.data.catalog import SOURCES, find_source
from lora_med.data.record import HeldOutSplit, Record, with_shown_uid
from lora_med.errors import DataError


@dataclass(frozen=True)
class HeldOutRecords:
    """The records to score, and beside them those to learn from, all under one access class.

    `access` is never looser than the catalog's class of `source` or of any record's own source: a looser class is
    raised to it. `training` serves solved examples, unseen mentions and baselines; `validation` serves calibration.
    Neither is ever scored. Uids are those that the class lets be shown. There is no slice: `with_records` and `draw`
    keep the class, and `repr` shows no text.
    Of a published split, `published` is how many items its files hold, and `left_out` counts by reason those that are
    not among `records`; elsewhere they are None and empty.

    Raises:
        SettingsError: an unknown source or access class.
    """

    records: tuple[Record, ...] = field(repr=False)
    access: Access
    source: str
    split: HeldOutSplit = "test"
    training: tuple[Record, ...] = field(default=(), repr=False)
    validation: tuple[Record, ...] = field(default=(), repr=False)
    published: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("records", "training", "validation"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        names = {record.source for record in chain(self.records, self.training, self.validation)}
        classes = [find_source(self.source).access, *(SOURCES[name].access for name in names if name in SOURCES)]
        own = (access for access in classes if access is not None)
        object.__setattr__(self, "access", strictest([self.access, *own]))
        for name in ("records", "training", "validation"):
            shown = tuple(with_shown_uid(record, self.access) for record in getattr(self, name))
            object.__setattr__(self, name, shown)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def with_records(self, records: Iterable[Record], reason: str = "not selected") -> HeldOutRecords:
        """The same source, split and access class with fewer records to score; `reason` says why the others left."""
        retained = tuple(records)
        gone = len(self.records) - len(retained)
        left_out = {**self.left_out, reason: self.left_out.get(reason, 0) + gone} if gone else self.left_out
        return replace(self, records=retained, left_out=left_out)

    def left_out_of(self, scored: int) -> dict[str, int]:
        """Of a published split, why items are not among the `scored` ones: the counts by reason."""
        if self.published is None:
            return {}
        unexplained = self.published - scored - sum(self.left_out.values())
        return {**self.left_out, **({"nothing to score": unexplained} if unexplained > 0 else {})}

    def draw(self, max_items: int | None, seed: int) -> HeldOutRecords:
        """At most `max_items` of the records, drawn by `seed`, in their order.

        Raises:
            DataError: there are no records, or two have the same uid.
        """
        if not self.records:
            raise DataError("there are no held-out records to score", fix="check data.paths, the split and its share")
        repeated = [uid for uid, count in Counter(record.uid for record in self.records).items() if count > 1]
        if repeated:
            raise DataError(
                f"{len(repeated)} uids occur more than once, the first is {repeated[0]}", fix="one uid for each record"
            )
        if max_items is None or len(self.records) <= max_items:
            return self
        indices = sorted(random.Random(seed).sample(range(len(self.records)), max_items))
        return self.with_records((self.records[index] for index in indices), "max_items")
