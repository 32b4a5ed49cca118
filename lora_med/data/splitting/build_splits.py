"""From settings to splits: find and read the inputs, take the published split or make one, remove leaks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from lora_med.config.data_settings import DataSettings
from lora_med.data.access import CREDENTIALED, Access, handled_as
from lora_med.data.catalog import find_source
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import Again, Input, ReadOptions, TableFormat, Tally, numbered_names
from lora_med.data.reading import Reading, read_records
from lora_med.data.record import HeldOutSplit, Question, Record, Split, with_shown_uid
from lora_med.data.scanning.record_streams import Records, Stream, first
from lora_med.data.scanning.scanned_corpus import ScannedReading, can_scan
from lora_med.data.shapes.columns.accounting import check_ignored, columns_lines, columns_report
from lora_med.data.source import Source
from lora_med.data.splitting.block_lists import is_blocked, load_block_list, shipped
from lora_med.data.splitting.leakage import TRAINING_ORDER, Decontamination, Rules, decontaminate
from lora_med.data.splitting.overlap_with_tests import load_test_file
from lora_med.data.splitting.scanned import RecordDigest
from lora_med.data.splitting.split_plans import (
    Plan,
    Supply,
    held_out_altogether,
    plan_of_one,
    plan_of_published,
    plan_of_scanned,
)
from lora_med.data.splitting.splits import splits_by_file_name
from lora_med.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """The splits of a corpus, the test split among them: for data/ alone, which hands out one or the other.

    `published` maps each published split that is held out to the number of items in its files, and `left_out` to those
    that are not among the records, by reason.
    """

    source: Source
    records: dict[Split, Records]
    inputs: tuple[Input, ...]
    readings: dict[str, str]  # Hub data set -> SHA-256 of its records
    tally: Tally
    description: str
    decontamination: Decontamination
    published: dict[Split, int]
    left_out: dict[Split, dict[str, int]]
    columns: dict[str, Any]  # what was read from which column, and what the group is; see shapes/accounting.py


def read_splits(
    settings: DataSettings,
    rules: Rules,
    in_memory: Mapping[Split, MemoryRows] | None = None,
    *,
    access: Access | None = None,
) -> Splits:
    """The splits that `settings` name, read, split, decontaminated and counted; see `open_corpus` for what it raises.

    Args:
        in_memory: rows in memory in place of `settings.paths`; train alone is split by the shares, as a file would be.
        access: the class that the user states.
    """
    source, inputs = _source_and_inputs(settings, in_memory)
    options = read_options(settings)
    named = _of_memory(in_memory) if in_memory else _named(source, inputs)
    limit = settings.max_records if source.limit_before_split else None
    whole = held_out_altogether(settings)

    reading_of = partial(read_records, source, options=options, skip_bad=settings.skip_bad, limit=limit, access=access)
    scanned: ScannedReading | None = None
    if named is not None:
        by_split: dict[Split, Reading] = {
            split: reading_of(items, repeats="dropped" if split == "train" else "renamed", may_be_empty=True)
            for split, items in named.items()
        }
        readings = list(by_split.values())
        plan = plan_of_published(by_split, settings)
    elif whole is None and limit is None and can_scan(source, inputs, streaming=settings.streaming):
        source.check_table(options.table)
        scanned = ScannedReading(source.name, inputs, options, rules, skip_bad=settings.skip_bad, access=access)
        readings = [scanned]
        plan = plan_of_scanned(scanned.digests, settings)
    else:
        is_whole = whole is not None or source.official_split is not None
        readings = [reading_of(inputs, repeats="renamed" if is_whole else "dropped")]
        plan = plan_of_one(source, readings[0], inputs, settings, whole)
    decontamination = decontaminate(
        _placed(plan.supplies), rules, plan.fixed, lambda: options.access_of(source.access, access)
    )
    records: dict[Split, Records] = (
        dict(scanned.streams(plan.supplies[0].split_of, decontamination))
        if scanned is not None
        else {split: _dealt(plan.supplies, split, decontamination, settings.streaming) for split in TRAINING_ORDER}
    )
    source = dataclasses.replace(source, access=options.access_of(source.access, access))
    splits = _finish(source, inputs, readings, records, plan, decontamination, settings)
    if limit is None:
        check_ignored(options)
    splits = dataclasses.replace(splits, columns=columns_report(options.notes))
    for line in columns_lines(splits.columns):
        logger.info("%s: %s", source.name, line)
    if "label" not in options.notes.columns.values():
        return splits
    _same_classes(readings, source.access)
    return dataclasses.replace(splits, source=dataclasses.replace(splits.source, template="label"))


def _source_and_inputs(
    settings: DataSettings, in_memory: Mapping[Split, MemoryRows] | None = None
) -> tuple[Source, list[Input]]:
    source = find_source(settings.source)
    inputs = list(in_memory.values()) if in_memory else find_inputs(source, settings.paths, settings.hub_split)
    return source, [item for item in inputs if not (isinstance(item, Path) and item.name in source.companion_files)]


def read_options(settings: DataSettings) -> ReadOptions:
    """How the files of these settings are read: columns, labels, the format of tables."""
    return ReadOptions(
        settings.columns,
        settings.keep_retracted,
        settings.streaming,
        labels=tuple(settings.labels or ()),
        ignore_columns=tuple(settings.ignore_columns),
        answer_form=settings.answer_form,
        table=_table(settings),
    )


def _table(settings: DataSettings) -> TableFormat:
    return TableFormat(settings.encoding, settings.delimiter, settings.sheet)


def holds_only_test_items(settings: DataSettings, rules: Rules) -> bool:
    """Whether every record is on a block-list, so that no training saw one; one pass, up to the first that is not."""
    source, inputs = _source_and_inputs(settings)
    if not rules.block_lists or _named(source, inputs) is not None:
        return False
    records = read_records(source, inputs, read_options(settings), skip_bad=settings.skip_bad)
    return all(is_blocked(record, rules.block_lists) for record in records)


def _of_memory(in_memory: Mapping[Split, MemoryRows]) -> dict[Split, list[Input]] | None:
    """The split that the caller made; None for one split alone, which is split by the shares."""
    return {split: [held] for split, held in in_memory.items()} if len(in_memory) > 1 else None


def _same_classes(readings: Sequence[Reading | ScannedReading], access: Access | None) -> None:
    """Refuse files of splits whose label columns hold other classes: a model learns to choose from those it saw.

    Raises:
        DataError: they differ; the classes are named only where rows may be shown.
    """
    firsts = (next(iter(reading), None) for reading in readings if isinstance(reading, Reading))
    offered = {record.options for record in firsts if isinstance(record, Question)}
    if len(offered) > 1:
        is_shown = handled_as(access) != CREDENTIALED
        classes = [", ".join(names) if is_shown else f"{len(names)} classes" for names in sorted(offered)]
        raise DataError(
            "the files of the splits hold other classes: " + "; ".join(classes),
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


def rules_of(settings: DataSettings, scored: HeldOutSplit = "test") -> Rules:
    """What decontaminates the splits, block-lists and test files read; the same for every source of a mixture.

    `scored` is a split that may hold items of known test sets, besides the test split: the one that is evaluated.
    """
    if not settings.decontaminate:
        return Rules(settings.leaks, settings.near_duplicate_similarity)
    names = shipped() if settings.block_lists is None else settings.block_lists
    return Rules(
        settings.leaks,
        settings.near_duplicate_similarity,
        tuple(map(load_block_list, names)),
        tuple(load_test_file(name, _table(settings)) for name in settings.test_files),
        frozenset({"test", scored}),
    )


def _placed(supplies: Sequence[Supply]) -> Iterator[tuple[int, Split, Record | RecordDigest]]:
    for supply in supplies:
        for record in supply.records:
            yield 0, supply.split_of(record), record


def _dealt(supplies: Sequence[Supply], split: Split, decontamination: Decontamination, streaming: bool) -> Records:
    def again() -> Iterator[Record]:
        for supply in supplies:
            if split in supply.splits:
                for record in cast(Iterable[Record], supply.records):
                    if decontamination.final_split(record, supply.split_of(record)) == split:
                        yield with_shown_uid(record, decontamination.access)

    return Stream(Again(again), decontamination.sizes[split]) if streaming else list(again())


def _finish(
    source: Source,
    inputs: Sequence[Input],
    readings: Sequence[Reading | ScannedReading],
    records: dict[Split, Records],
    plan: Plan,
    decontamination: Decontamination,
    settings: DataSettings,
) -> Splits:
    tally = sum((reading.tally for reading in readings), Tally()).drop("duplicate", plan.repeated)
    for reason, count in decontamination.counts().items():
        tally = tally.drop(reason, count)
    if not tally.kept:
        raise DataError(
            f"no record is left: {tally}", where=", ".join(name for _, name in numbered_names(inputs).items())
        )
    complete = records
    if settings.max_records is not None:
        records = {split: first(held, settings.max_records) for split, held in complete.items()}
        tally = tally.drop("max_records", sum(map(len, complete.values())) - sum(map(len, records.values())))
    of_files = plan.of_files()
    left_out: dict[Split, dict[str, int]] = {
        split: own.dropped
        | decontamination.counts(split)
        | ({"max_records": len(complete[split]) - len(records[split])} if complete[split] is not records[split] else {})
        for split, own in of_files.items()
    }
    description = plan.description
    if decontamination.moved:
        description += f"; {len(decontamination.moved)} groups moved to their near-duplicates"
    description += "; streamed" if settings.streaming else ""
    kinds = set[type]().union(*(reading.kinds for reading in readings))
    has_conversations = any(reading.has_conversations for reading in readings)
    template = source.template_for(kinds, has_conversations=has_conversations)
    source = dataclasses.replace(source, template=template)
    hubs = {str(item): reading.sha256 for reading in readings for item in inputs if not isinstance(item, Path)}
    hubs |= {str(item): item.sha256 for item in inputs if isinstance(item, MemoryRows)}
    return Splits(
        source,
        records,
        tuple(inputs),
        hubs,
        tally,
        description,
        decontamination,
        {split: own.read for split, own in of_files.items()},
        {split: {reason: number for reason, number in counts.items() if number} for split, counts in left_out.items()},
        {},
    )
