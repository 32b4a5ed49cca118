"""From settings to splits: find and read the inputs, take the published split or make one, remove leaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lora_med.config.data_settings import DataSettings
from lora_med.data.access import strictest
from lora_med.data.catalog import find_source
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import Again, Input, ReadOptions, TableFormat, Tally, numbered_names
from lora_med.data.reading import Reading, find_inputs, read_records
from lora_med.data.record import Question, Record, Split, with_shown_uid
from lora_med.data.source import OfficialSplit, Source
from lora_med.data.splitting.block_lists import load_block_list, shipped
from lora_med.data.splitting.leakage import TRAINING_ORDER, Decontamination, Rules, decontaminate
from lora_med.data.splitting.overlap_with_tests import load_test_file
from lora_med.data.splitting.splits import SplitShares, split_of_group, splits_by_file_name, stratified
from lora_med.errors import DataError


@dataclass(frozen=True)
class Stream:
    """Records that are read again at each pass and never held; their number is known from the first."""

    passes: Iterable[Record]
    length: int

    def __iter__(self) -> Iterator[Record]:
        return iter(self.passes)

    def __len__(self) -> int:
        return self.length


Records = Sequence[Record] | Stream
ALL: frozenset[Split] = frozenset(TRAINING_ORDER)


@dataclass(frozen=True)
class Splits:
    """The splits of a corpus, the test split among them: for data/ alone, which hands out one or the other."""

    source: Source
    records: dict[Split, Records]
    inputs: tuple[Input, ...]
    readings: dict[str, str]  # Hub data set -> SHA-256 of its records
    tally: Tally
    description: str
    decontamination: Decontamination


@dataclass(frozen=True)
class _Supply:
    """Records with the rule that assigns each to its split; `splits` are those it can name."""

    records: Iterable[Record]
    split_of: Callable[[Record], Split]
    splits: frozenset[Split]


def read_splits(settings: DataSettings, rules: Rules, in_memory: Mapping[Split, MemoryRows] | None = None) -> Splits:
    """The splits that `settings` name, read, split, decontaminated and counted; see `open_corpus` for what it raises.

    Args:
        in_memory: rows in memory in place of `settings.paths`; train alone is split by the shares, as a file would be.
    """
    source = find_source(settings.source)
    inputs = list(in_memory.values()) if in_memory else find_inputs(source, settings.paths, settings.hub_split)
    inputs = [item for item in inputs if not (isinstance(item, Path) and item.name in source.companion_files)]
    options = ReadOptions(
        settings.columns,
        settings.keep_retracted,
        settings.streaming,
        labels=tuple(settings.labels or ()),
        ignore_columns=tuple(settings.ignore_columns),
        table=TableFormat(settings.encoding, settings.delimiter, settings.sheet),
    )
    named = _of_memory(in_memory) if in_memory else _named(source, inputs)
    limit = settings.max_records if source.limit_before_split else None
    readings = [
        read_records(source, items, options, skip_bad=settings.skip_bad, limit=limit)
        for items in (named.values() if named else [inputs])
    ]
    if "label" in settings.columns:
        _same_classes(readings)
    if named is not None:
        supplies, description, fixed = _published(dict(zip(named, readings, strict=True)), settings)
    elif source.official_split is not None:
        supplies, description, fixed = _official(source.official_split, list(readings[0]), inputs, settings)
    else:
        held = readings[0] if settings.streaming else list(readings[0])
        supplies, description, fixed = [_by_share(held, settings)], _shares(settings), frozenset()
    decontamination = decontaminate(
        _placed(supplies), rules, fixed, lambda: strictest([source.access, options.met_access()])
    )
    records: dict[Split, Records] = {
        split: _dealt(supplies, split, decontamination, streaming=settings.streaming) for split in TRAINING_ORDER
    }
    description += (
        f"; {len(decontamination.moved)} groups moved to their near-duplicates" if decontamination.moved else ""
    )
    description += "; streamed" if settings.streaming else ""
    source = dataclasses.replace(source, access=strictest([source.access, options.met_access()]))
    splits = _finish(source, inputs, readings, records, description, decontamination, settings.max_records)
    if "label" not in settings.columns:
        return splits
    return dataclasses.replace(splits, source=dataclasses.replace(splits.source, template="label"))


def _of_memory(in_memory: Mapping[Split, MemoryRows]) -> dict[Split, list[Input]] | None:
    """The split that the caller made; None for one split alone, which is split by the shares."""
    return {split: [held] for split, held in in_memory.items()} if len(in_memory) > 1 else None


def _same_classes(readings: Sequence[Reading]) -> None:
    """Refuse files of splits whose label columns hold other classes: a model learns to choose from those it saw.

    Raises:
        DataError: they differ.
    """
    offered = {
        record.options: record
        for record in (next(iter(reading), None) for reading in readings)
        if isinstance(record, Question)
    }
    if len(offered) > 1:
        raise DataError(
            "the files of the splits hold other classes: " + "; ".join(", ".join(options) for options in offered),
            where="data.columns.label",
            fix="name all classes in data.labels",
        )


def has_named_splits(settings: DataSettings) -> bool:
    """Whether the files' names define a published split."""
    source = find_source(settings.source)
    return _named(source, find_inputs(source, settings.paths, settings.hub_split)) is not None


def _named(source: Source, inputs: Sequence[Input]) -> dict[Split, list[Input]] | None:
    if source.split_names == "never":
        return None
    return splits_by_file_name(inputs, within=source.split_names == "anywhere", dev=source.dev)


def rules_of(settings: DataSettings) -> Rules:
    """What decontaminates the splits, block-lists and test files read; the same for every source of a mixture."""
    if not settings.decontaminate:
        return Rules(settings.leaks, settings.near_duplicate_similarity)
    names = shipped() if settings.block_lists is None else settings.block_lists
    return Rules(
        settings.leaks,
        settings.near_duplicate_similarity,
        tuple(map(load_block_list, names)),
        tuple(map(load_test_file, settings.test_files)),
    )


def _placed(supplies: Sequence[_Supply]) -> Iterator[tuple[int, Split, Record]]:
    for supply in supplies:
        for record in supply.records:
            yield 0, supply.split_of(record), record


def _dealt(supplies: Sequence[_Supply], split: Split, decontamination: Decontamination, *, streaming: bool) -> Records:
    def again() -> Iterator[Record]:
        for supply in supplies:
            if split in supply.splits:
                for record in supply.records:
                    if decontamination.final_split(record, supply.split_of(record)) == split:
                        yield with_shown_uid(record, decontamination.access)

    return Stream(Again(again), decontamination.sizes[split]) if streaming else list(again())


def _finish(
    source: Source,
    inputs: Sequence[Input],
    readings: Sequence[Reading],
    records: dict[Split, Records],
    description: str,
    decontamination: Decontamination,
    limit: int | None,
) -> Splits:
    tally = sum((reading.tally for reading in readings), Tally())
    for reason, count in decontamination.counts().items():
        tally = tally.drop(reason, count)
    if not tally.kept:
        raise DataError(
            f"no record is left: {tally}", where=", ".join(name for _, name in numbered_names(inputs).items())
        )
    if limit is not None:
        short: dict[Split, Records] = {split: _first(held, limit) for split, held in records.items()}
        tally = tally.drop("max_records", sum(map(len, records.values())) - sum(map(len, short.values())))
        records = short
    first = next((reading.first for reading in readings if reading.first is not None), None)
    source = dataclasses.replace(source, template=source.template_for(first))
    hubs = {str(item): reading.sha256 for reading in readings for item in inputs if not isinstance(item, Path)}
    hubs |= {str(item): item.sha256 for item in inputs if isinstance(item, MemoryRows)}
    return Splits(source, records, tuple(inputs), hubs, tally, description, decontamination)


def _first(records: Records, limit: int) -> Records:
    if isinstance(records, Stream):
        return Stream(Again(lambda: islice(records, limit)), min(limit, len(records)))
    return records[:limit]


def _shares(settings: DataSettings) -> str:
    return (
        f"split by group with seed {settings.split_seed}: {settings.validation_share:g} validation, "
        f"{settings.test_share:g} test"
    )


def _by_share(records: Iterable[Record], settings: DataSettings, *, test: bool = True) -> _Supply:
    test_share = settings.test_share if test else 0.0

    def split_of(record: Record) -> Split:
        return split_of_group(record.group, settings.split_seed, settings.validation_share, test_share)

    return _Supply(records, split_of, ALL)


def _official(
    official_split: OfficialSplit, records: Sequence[Record], inputs: Sequence[Input], settings: DataSettings
) -> tuple[list[_Supply], str, frozenset[Split]]:
    shares = SplitShares(settings.fold, settings.split_seed, settings.validation_share, settings.test_share)
    official = official_split(records, inputs, shares)
    if official is not None:
        assigned, description = official
    else:
        assigned = stratified(records, settings.split_seed, settings.validation_share, settings.test_share)
        description = _shares(settings) + ", stratified by answer; not an official split"
    supply = _Supply(records, lambda record: assigned[record.group], ALL)
    return [supply], description, ALL if official is not None else frozenset()


def _published(readings: dict[Split, Reading], settings: DataSettings) -> tuple[list[_Supply], str, frozenset[Split]]:
    held: dict[Split, Iterable[Record]] = {
        split: reading if settings.streaming else list(reading) for split, reading in readings.items()
    }
    supplies = [_always(split, records) for split, records in held.items()]
    sizes = {split: len(records) if isinstance(records, list) else None for split, records in held.items()}
    description = "published, by file: " + ", ".join(
        split if size is None else f"{split} {size:,}" for split, size in sizes.items()
    )
    if "validation" not in held and settings.validation_share:
        supplies[list(held).index("train")] = _by_share(held["train"], settings, test=False)
        description += (
            f"; validation is {settings.validation_share:g} of train, by group with seed {settings.split_seed}"
        )
        return supplies, description, ALL & held.keys() - {"train"}
    return supplies, description, ALL


def _always(split: Split, records: Iterable[Record]) -> _Supply:
    return _Supply(records, lambda record: split, frozenset([split]))
