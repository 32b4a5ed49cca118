"""From readings to a plan of splits: the split of each record, which splits are published, how many items they have.

Published test sets are scored whole: duplicates are dropped in training only, and where records of all splits come from
one file that lora_med splits itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lora_med.config.data_settings import DataSettings
from lora_med.data.outcome import Again, Input, Tally
from lora_med.data.reading import Reading, content
from lora_med.data.record import HeldOutSplit, Record, Split
from lora_med.data.source import Source
from lora_med.data.splitting.leakage import TRAINING_ORDER
from lora_med.data.splitting.scanned import RecordDigest
from lora_med.data.splitting.splits import SplitShares, split_of_group, stratified

ALL: frozenset[Split] = frozenset(TRAINING_ORDER)


@dataclass(frozen=True)
class Supply:
    """Records with the rule that assigns each to its split; `splits` are those it can name."""

    records: Iterable[Record | RecordDigest]
    split_of: Callable[[Record | RecordDigest], Split]
    splits: frozenset[Split]


@dataclass(frozen=True)
class Plan:
    """The records with the rules that assign them; `fixed` splits are published, and nothing moves into or out of them.

    `of_files` maps each published, held-out split to the tally of its own files; it is complete after the first pass.
    `repeated` counts training records dropped after reading, because an earlier one has their content.
    """

    supplies: list[Supply]
    description: str
    fixed: frozenset[Split]
    of_files: Callable[[], dict[Split, Tally]]
    repeated: int = 0


def hold_out(settings: DataSettings, split: HeldOutSplit) -> DataSettings:
    """The settings under which files without splits of their own belong to `split` altogether."""
    shares = {"validation_share": 0.0, "test_share": 0.0, f"{split}_share": 1.0}
    return settings.model_copy(update=shares)


def held_out_altogether(settings: DataSettings) -> HeldOutSplit | None:
    """The split that all records belong to, where `hold_out` made the settings."""
    if settings.test_share == 1.0:
        return "test"
    return "validation" if settings.validation_share == 1.0 else None


def _shares(settings: DataSettings) -> str:
    return (
        f"split by group with seed {settings.split_seed}: {settings.validation_share:g} validation, "
        f"{settings.test_share:g} test"
    )


def _by_share(records: Iterable[Record | RecordDigest], settings: DataSettings, *, test: bool = True) -> Supply:
    test_share = settings.test_share if test else 0.0

    def split_of(record: Record | RecordDigest) -> Split:
        return split_of_group(record.group, settings.split_seed, settings.validation_share, test_share)

    return Supply(records, split_of, ALL)


def plan_of_one(
    source: Source, reading: Reading, inputs: Sequence[Input], settings: DataSettings, whole: HeldOutSplit | None
) -> Plan:
    """Records of files without a split of their own: the official split where these have one, else by the shares."""
    is_published = whole is not None and source.split_names != "never"

    def of_files() -> dict[Split, Tally]:
        return {whole: reading.tally} if is_published and whole is not None and reading.is_complete else {}

    if source.official_split is None:
        held = reading if settings.streaming else list(reading)
        return Plan([_by_share(held, settings)], _shares(settings), frozenset(), of_files)
    records = list(reading)
    shares = SplitShares(settings.fold, settings.split_seed, settings.validation_share, settings.test_share)
    official = source.official_split(records, inputs, shares)
    if official is not None:
        assigned, description, published = official
        kept = _without_repeats(records, lambda record: assigned[record.group] == "train")
        counts = Counter(assigned[record.group] for record in records)
        tallies: dict[Split, Tally] = {split: Tally(counts[split], counts[split]) for split in sorted(published)}
        supply = Supply(kept, lambda record: assigned[record.group], ALL)
        return Plan([supply], description, ALL, lambda: tallies, len(records) - len(kept))
    kept = records if whole is not None else _without_repeats(records, lambda _: True)
    assigned = stratified(kept, settings.split_seed, settings.validation_share, settings.test_share)
    description = _shares(settings) + ", stratified by answer; not an official split"
    supply = Supply(kept, lambda record: assigned[record.group], ALL)
    return Plan([supply], description, frozenset(), of_files, len(records) - len(kept))


def plan_of_scanned(digests: Callable[[], Iterator[RecordDigest]], settings: DataSettings) -> Plan:
    """As `plan_of_one` for files without an official split, of records without their texts."""
    return Plan([_by_share(Again(digests), settings)], _shares(settings), frozenset(), dict)


def _without_repeats(records: Sequence[Record], drops: Callable[[Record], bool]) -> list[Record]:
    """The records without those that have the content of an earlier one and that `drops` chooses."""
    contents = set[int]()
    kept: list[Record] = []
    for record in records:
        if not drops(record):
            kept.append(record)
        elif (own := content(record)) not in contents:
            contents.add(own)
            kept.append(record)
    return kept


def plan_of_published(readings: dict[Split, Reading], settings: DataSettings) -> Plan:
    """Files that are the splits by their names; without a validation file a share of train is validation."""
    held: dict[Split, Iterable[Record]] = {
        split: reading if settings.streaming else list(reading) for split, reading in readings.items()
    }
    supplies = [_always(split, records) for split, records in held.items()]
    sizes = {split: len(records) if isinstance(records, list) else None for split, records in held.items()}
    description = "published, by file: " + ", ".join(
        split if size is None else f"{split} {size:,}" for split, size in sizes.items()
    )
    fixed = ALL
    if "validation" not in held and settings.validation_share:
        supplies[list(held).index("train")] = _by_share(held["train"], settings, test=False)
        description += (
            f"; validation is {settings.validation_share:g} of train, by group with seed {settings.split_seed}"
        )
        fixed = ALL & held.keys() - {"train"}
    return Plan(
        supplies,
        description,
        fixed,
        lambda: {
            split: reading.tally for split, reading in readings.items() if split != "train" and reading.is_complete
        },
    )


def _always(split: Split, records: Iterable[Record]) -> Supply:
    return Supply(records, lambda record: split, frozenset([split]))
