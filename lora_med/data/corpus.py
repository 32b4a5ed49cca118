"""The door to data: settings in, training and validation records out. Training code cannot see the test part.

`open_corpus` never gives the test records; `open_heldout` gives one held-out part, for evaluation.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from lora_med.config.schema import DataSettings
from lora_med.data import folds
from lora_med.data.catalog import Source, find_source, template_for
from lora_med.data.outcome import Again, Input, ReadOptions, Tally, numbered_names
from lora_med.data.reading import Reading, find_inputs, read_records
from lora_med.data.record import Record
from lora_med.data.splits import Part, check_apart, named_parts, part_of, stratified
from lora_med.errors import DataError
from lora_med.files import sha256_file

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Corpus:
    """What a run trains on. `split` says in words how the parts were made; `source.template` is the default template.

    `hashes` maps each file's name to its SHA-256, for provenance; a Hub data set has that of what was read.
    """

    source: Source
    train: Records
    validation: Records
    files: tuple[Path, ...]
    hashes: dict[str, str]
    tally: Tally
    licence: str
    access: str
    split: str


@dataclass(frozen=True)
class Survey:
    """What a corpus amounts to: inputs by name, counts, how it is split and the size of each part."""

    source: str
    inputs: tuple[str, ...]
    tally: Tally
    split: str
    sizes: dict[Part, int]
    template: str


@dataclass(frozen=True)
class _Parts:
    source: Source
    records: dict[Part, Records]
    inputs: tuple[Input, ...]
    readings: dict[str, str]  # Hub data set -> SHA-256 of its records
    tally: Tally
    split: str


def open_corpus(settings: DataSettings) -> Corpus:
    """The training and validation records that `settings` name, checked, split and counted.

    With `settings.streaming` the records are re-read at every pass and two passes are made here: one to find current
    versions, one to count.

    Raises:
        SettingsError: an unknown source or column.
        InputMissingError: a path that nothing matches.
        DataError: bad input (unless `skip_bad`), parts that overlap, or nothing left to train on.
    """
    parts = _read_parts(settings)
    train = parts.records["train"]
    if not len(train):
        raise DataError(
            f"nothing is left to train on: {parts.tally}; {parts.split}", where="data.paths", fix=_share_fix(parts)
        )
    hashes = {name: parts.readings.get(name) or sha256_file(cast(Path, item)) for item, name in _names(parts)}
    logger.info("%s: %s; %s", parts.source.name, parts.tally, parts.split)
    return Corpus(
        source=parts.source,
        train=train,
        validation=parts.records["validation"],
        files=tuple(item for item in parts.inputs if isinstance(item, Path)),
        hashes=hashes,
        tally=parts.tally,
        licence=parts.source.licence,
        access=parts.source.access,
        split=parts.split,
    )


def open_heldout(settings: DataSettings, split: Literal["validation", "test"]) -> list[Record]:
    """The records of one held-out part: the same that `open_corpus` kept from training.

    Raises:
        DataError: the part is empty; the message says how the parts were made.
    """
    parts = _read_parts(settings)
    records = list(parts.records[split])
    if not records:
        raise DataError(f"the {split} part is empty: {parts.split}", where="data.paths", fix=_share_fix(parts, split))
    return records


def survey(settings: DataSettings) -> Survey:
    """What `settings` would give a run, checked in full: counts and sizes, no records."""
    parts = _read_parts(settings)
    return Survey(
        source=parts.source.name,
        inputs=tuple(name for _, name in _names(parts)),
        tally=parts.tally,
        split=parts.split,
        sizes={part: len(records) for part, records in parts.records.items()},
        template=settings.template or parts.source.template,
    )


def _share_fix(parts: _Parts, split: str = "train") -> str:
    if split == "train":
        return "give more data, or lower data.validation_share and data.test_share"
    return f"raise data.{split}_share, or give the published {split} file beside the training file"


def _names(parts: _Parts) -> list[tuple[Input, str]]:
    return list(numbered_names(parts.inputs).items())


def _read_parts(settings: DataSettings) -> _Parts:
    source = find_source(settings.source)
    inputs = find_inputs(source, settings.paths, settings.hub_split)
    inputs = folds.without_ground_truth(inputs) if source.name == "pubmedqa" else inputs
    options = ReadOptions(settings.columns, settings.keep_retracted, settings.streaming)
    published = source.name not in ("pubmed", "custom")
    named = named_parts(inputs, published=published) if source.name != "pubmed" else None
    if named is not None:
        return _published(source, inputs, named, options, settings)
    limit = None if source.name == "pubmedqa" else settings.max_records  # its official split is known by all items
    reading = read_records(source, inputs, options, skip_bad=settings.skip_bad, limit=limit)
    if settings.streaming and source.name != "pubmedqa":
        records, split = _streamed(reading, settings)
    elif source.name == "pubmedqa":
        records, split = _questions(list(reading), inputs, settings)
    else:
        records, split = _by_share(list(reading), settings)
    return _finish(source, inputs, [reading], records, split, settings.max_records)


def _finish(
    source: Source,
    inputs: Sequence[Input],
    readings: Sequence[Reading],
    records: dict[Part, Records],
    split: str,
    limit: int | None,
) -> _Parts:
    tally = sum((reading.tally for reading in readings), Tally())
    if not tally.kept:
        raise DataError(
            f"no record is left: {tally}", where=", ".join(name for _, name in numbered_names(inputs).items())
        )
    if limit is not None:
        short = {part: held[:limit] if isinstance(held, Sequence) else held for part, held in records.items()}
        tally = tally.drop("max_records", sum(map(len, records.values())) - sum(map(len, short.values())))
        records = cast(dict[Part, Records], short)
    first = next((reading.first for reading in readings if reading.first is not None), None)
    source = dataclasses.replace(source, template=template_for(source, first))
    hubs = {str(item): reading.sha256 for reading in readings for item in inputs if not isinstance(item, Path)}
    return _Parts(source, records, tuple(inputs), hubs, tally, split)


def _shares(settings: DataSettings) -> str:
    return (
        f"split by group with seed {settings.split_seed}: {settings.validation_share:g} validation, "
        f"{settings.test_share:g} test"
    )


def _by_share(records: Iterable[Record], settings: DataSettings) -> tuple[dict[Part, Records], str]:
    parts: dict[Part, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in records:
        part = part_of(record.group, settings.split_seed, settings.validation_share, settings.test_share)
        parts[part].append(record)
    return cast(dict[Part, Records], parts), _shares(settings)


def _streamed(records: Iterable[Record], settings: DataSettings) -> tuple[dict[Part, Records], str]:
    def belongs(record: Record) -> Part:
        return part_of(record.group, settings.split_seed, settings.validation_share, settings.test_share)

    def only(part: Part) -> Again[Record]:
        return Again(lambda: (record for record in records if belongs(record) == part))

    lengths: dict[Part, int] = {"train": 0, "validation": 0, "test": 0}
    for record in records:
        lengths[belongs(record)] += 1
    return {part: Stream(only(part), length) for part, length in lengths.items()}, _shares(settings) + "; streamed"


def _questions(
    records: Sequence[Record], inputs: Sequence[Input], settings: DataSettings
) -> tuple[dict[Part, Records], str]:
    shares = folds.Shares(settings.fold, settings.split_seed, settings.validation_share, settings.test_share)
    official = folds.official_parts(records, inputs, shares)
    if official is not None:
        assigned, split = official
    else:
        assigned = stratified(records, settings.split_seed, settings.validation_share, settings.test_share)
        split = _shares(settings) + ", stratified by answer; not an official split"
    parts: dict[Part, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in records:
        parts[assigned[record.group]].append(record)
    return cast(dict[Part, Records], parts), split


def _published(
    source: Source,
    inputs: Sequence[Input],
    named: dict[Part, list[Input]],
    options: ReadOptions,
    settings: DataSettings,
) -> _Parts:
    readings: dict[Part, Reading] = {
        part: read_records(source, items, options, skip_bad=settings.skip_bad, limit=settings.max_records)
        for part, items in named.items()
    }
    held: dict[Part, Records] = {"train": [], "validation": [], "test": []}
    for part, reading in readings.items():
        held[part] = Stream(reading, sum(1 for _ in reading)) if settings.streaming else list(reading)
    check_apart(held)
    split = "published, by file: " + ", ".join(f"{part} {len(held[part]):,}" for part in named)
    if "validation" not in named and settings.validation_share:
        cut = _streamed if settings.streaming else _by_share
        own, _ = cut(held["train"], settings.model_copy(update={"test_share": 0.0}))
        held["train"], held["validation"] = own["train"], own["validation"]
        split += f"; validation is {settings.validation_share:g} of train, by group with seed {settings.split_seed}"
    return _finish(source, inputs, list(readings.values()), held, split, None)
