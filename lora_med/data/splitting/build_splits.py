"""How settings become parts: inputs found and read, the split that is published or cut, leaks taken out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lora_med.config.schema import DataSettings
from lora_med.data.access import strictest
from lora_med.data.catalog import Source, find_source, template_for
from lora_med.data.in_memory import MemoryRows
from lora_med.data.outcome import Again, Input, ReadOptions, Tally, numbered_names
from lora_med.data.reading import Reading, find_inputs, read_records
from lora_med.data.record import Question, Record
from lora_med.data.splitting import pubmedqa_folds as folds
from lora_med.data.splitting.block_lists import load_block_list, shipped
from lora_med.data.splitting.leakage import TRAINING_ORDER, Rules, Separation, separate
from lora_med.data.splitting.splits import Part, named_parts, part_of, stratified
from lora_med.data.splitting.test_overlap import load_test_file
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
ALL: frozenset[Part] = frozenset(TRAINING_ORDER)


@dataclass(frozen=True)
class Parts:
    """The parts of a corpus, the test part among them: for data/ alone, which hands out one or the other."""

    source: Source
    records: dict[Part, Records]
    inputs: tuple[Input, ...]
    readings: dict[str, str]  # Hub data set -> SHA-256 of its records
    tally: Tally
    split: str
    apart: Separation


@dataclass(frozen=True)
class _Supply:
    """Records with the rule that says which part each belongs to; `parts` are those it can say."""

    records: Iterable[Record]
    belongs: Callable[[Record], Part]
    parts: frozenset[Part]


def read_parts(settings: DataSettings, rules: Rules, given: Mapping[Part, MemoryRows] | None = None) -> Parts:
    """The parts that `settings` name, read, split, kept apart and counted; see `open_corpus` for what it raises.

    Args:
        given: rows in memory in place of `settings.paths`; train alone is split by the shares, as a file would be.
    """
    source = find_source(settings.source)
    inputs = list(given.values()) if given else find_inputs(source, settings.paths, settings.hub_split)
    inputs = folds.without_ground_truth(inputs) if source.name == "pubmedqa" else inputs
    options = ReadOptions(
        settings.columns, settings.keep_retracted, settings.streaming, labels=tuple(settings.labels or ())
    )
    named = _of_memory(given) if given else _named(source, inputs)
    limit = None if source.name == "pubmedqa" else settings.max_records  # its official split is known by all items
    readings = [
        read_records(source, items, options, skip_bad=settings.skip_bad, limit=limit)
        for items in (named.values() if named else [inputs])
    ]
    if "label" in settings.columns:
        _same_classes(readings)
    if named is not None:
        supplies, split, fixed = _published(dict(zip(named, readings, strict=True)), settings)
    elif source.name == "pubmedqa":
        supplies, split, fixed = _questions(list(readings[0]), inputs, settings)
    else:
        held = readings[0] if settings.streaming else list(readings[0])
        supplies, split, fixed = [_by_share(held, settings)], _shares(settings), frozenset()
    apart = separate(_placed(supplies), rules, fixed)
    records: dict[Part, Records] = {
        part: _dealt(supplies, part, apart, streaming=settings.streaming) for part in TRAINING_ORDER
    }
    split += f"; {len(apart.moved)} groups moved to their near-duplicates" if apart.moved else ""
    split += "; streamed" if settings.streaming else ""
    source = dataclasses.replace(source, access=strictest([source.access, options.met_access()]))
    parts = _finish(source, inputs, readings, records, split, apart, settings.max_records)
    if "label" not in settings.columns:
        return parts
    return dataclasses.replace(parts, source=dataclasses.replace(parts.source, template="label"))


def _of_memory(given: Mapping[Part, MemoryRows]) -> dict[Part, list[Input]] | None:
    """The split that the caller made; None for one part alone, which is split by the shares."""
    return {part: [held] for part, held in given.items()} if len(given) > 1 else None


def _same_classes(readings: Sequence[Reading]) -> None:
    """Refuse files of parts whose label columns hold other classes: a model learns to choose from those it saw.

    Raises:
        DataError: they differ.
    """
    offered = {
        one.options: one for one in (next(iter(reading), None) for reading in readings) if isinstance(one, Question)
    }
    if len(offered) > 1:
        raise DataError(
            "the files of the parts hold other classes: " + "; ".join(", ".join(options) for options in offered),
            where="data.columns.label",
            fix="name all classes in data.labels",
        )


def names_parts(settings: DataSettings) -> bool:
    """Whether the files' names tell a published split."""
    source = find_source(settings.source)
    return _named(source, find_inputs(source, settings.paths, settings.hub_split)) is not None


def _named(source: Source, inputs: Sequence[Input]) -> dict[Part, list[Input]] | None:
    known = source.name not in ("pubmed", "custom")
    return named_parts(inputs, published=known, dev=source.dev) if source.name != "pubmed" else None


def rules_of(settings: DataSettings) -> Rules:
    """What keeps the parts apart, block-lists and test files read; the same for every source of a mixture."""
    if not settings.decontaminate:
        return Rules(settings.leaks, settings.near_duplicate_similarity)
    names = shipped() if settings.block_lists is None else settings.block_lists
    return Rules(
        settings.leaks,
        settings.near_duplicate_similarity,
        tuple(map(load_block_list, names)),
        tuple(map(load_test_file, settings.test_files)),
    )


def _placed(supplies: Sequence[_Supply]) -> Iterator[tuple[int, Part, Record]]:
    for supply in supplies:
        for record in supply.records:
            yield 0, supply.belongs(record), record


def _dealt(supplies: Sequence[_Supply], part: Part, apart: Separation, *, streaming: bool) -> Records:
    def again() -> Iterator[Record]:
        for supply in supplies:
            if part in supply.parts:
                for record in supply.records:
                    if apart.place(record, supply.belongs(record)) == part:
                        yield record

    return Stream(Again(again), apart.sizes[part]) if streaming else list(again())


def _finish(
    source: Source,
    inputs: Sequence[Input],
    readings: Sequence[Reading],
    records: dict[Part, Records],
    split: str,
    apart: Separation,
    limit: int | None,
) -> Parts:
    tally = sum((reading.tally for reading in readings), Tally())
    for reason, count in apart.counts().items():
        tally = tally.drop(reason, count)
    if not tally.kept:
        raise DataError(
            f"no record is left: {tally}", where=", ".join(name for _, name in numbered_names(inputs).items())
        )
    if limit is not None:
        short: dict[Part, Records] = {part: _first(held, limit) for part, held in records.items()}
        tally = tally.drop("max_records", sum(map(len, records.values())) - sum(map(len, short.values())))
        records = short
    first = next((reading.first for reading in readings if reading.first is not None), None)
    source = dataclasses.replace(source, template=template_for(source, first))
    hubs = {str(item): reading.sha256 for reading in readings for item in inputs if not isinstance(item, Path)}
    hubs |= {str(item): item.sha256 for item in inputs if isinstance(item, MemoryRows)}
    return Parts(source, records, tuple(inputs), hubs, tally, split, apart)


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

    def belongs(record: Record) -> Part:
        return part_of(record.group, settings.split_seed, settings.validation_share, test_share)

    return _Supply(records, belongs, ALL)


def _questions(
    records: Sequence[Record], inputs: Sequence[Input], settings: DataSettings
) -> tuple[list[_Supply], str, frozenset[Part]]:
    shares = folds.Shares(settings.fold, settings.split_seed, settings.validation_share, settings.test_share)
    official = folds.official_parts(records, inputs, shares)
    if official is not None:
        assigned, split = official
    else:
        assigned = stratified(records, settings.split_seed, settings.validation_share, settings.test_share)
        split = _shares(settings) + ", stratified by answer; not an official split"
    supply = _Supply(records, lambda record: assigned[record.group], ALL)
    return [supply], split, ALL if official is not None else frozenset()


def _published(readings: dict[Part, Reading], settings: DataSettings) -> tuple[list[_Supply], str, frozenset[Part]]:
    held: dict[Part, Iterable[Record]] = {
        part: reading if settings.streaming else list(reading) for part, reading in readings.items()
    }
    supplies = [_always(part, records) for part, records in held.items()]
    sizes = {part: len(records) if isinstance(records, list) else None for part, records in held.items()}
    split = "published, by file: " + ", ".join(
        part if size is None else f"{part} {size:,}" for part, size in sizes.items()
    )
    if "validation" not in held and settings.validation_share:
        supplies[list(held).index("train")] = _by_share(held["train"], settings, test=False)
        split += f"; validation is {settings.validation_share:g} of train, by group with seed {settings.split_seed}"
        return supplies, split, ALL & held.keys() - {"train"}
    return supplies, split, ALL


def _always(part: Part, records: Iterable[Record]) -> _Supply:
    return _Supply(records, lambda record: part, frozenset([part]))
