"""The door to data: settings in, training and validation records out. Training code cannot see the test part.

`open_corpus` never gives the test records; `open_heldout` gives one held-out part, for evaluation.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from lora_med.config.schema import DataSettings
from lora_med.data.access import Access, strictest
from lora_med.data.catalog import Source
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.in_memory import MemoryRows, memory_rows
from lora_med.data.mixture import Ingredient, Mixed, mix
from lora_med.data.outcome import Tally, numbered_names
from lora_med.data.record import HeldOutSplit, Record
from lora_med.data.splitting.build_splits import Parts, Records, Stream, names_parts, read_parts, rules_of
from lora_med.data.splitting.leakage import TRAINING_ORDER, Rules, Separation, separate
from lora_med.data.splitting.splits import Part
from lora_med.errors import DataError, SettingsError
from lora_med.files import sha256_file

__all__ = ["Corpus", "Records", "Stream", "corpus_of", "open_corpus", "open_heldout", "open_parts"]
logger = logging.getLogger(__name__)
BETWEEN = "between the sources"
MOST_HASHES = 64  # that a card lists one by one


@dataclass(frozen=True)
class Corpus:
    """What a run trains on. `split` says in words how the parts were made.

    `template` is that of the first source; `templates` maps each source's name to its own. `hashes` maps each file's
    name to its SHA-256, in the order of reading (one over all where there are very many; in a mixture the source stands
    before the name); a Hub data set has that of what was read. `separation` says of each source, then of all together,
    what was taken out or moved to keep the parts apart, and `mixture` what each source gave (both as JSON values).
    """

    source: Source
    train: Records
    validation: Records
    template: str
    templates: dict[str, str]
    files: tuple[Path, ...]
    hashes: dict[str, str]
    tally: Tally
    license: str
    access: Access
    split: str
    separation: list[dict[str, Any]]
    mixture: list[dict[str, Any]]


@dataclass(frozen=True)
class Opened:
    """All parts of each source, the test part too; `across` says what left because another source holds it out."""

    every: list[Parts]
    across: Separation | None


def open_corpus(settings: DataSettings, *, train: Any = None, validation: Any = None) -> Corpus:
    """The training and validation records that `settings` name, checked, split, kept apart, mixed and counted.

    With `settings.streaming` the records are re-read at every pass and two passes are made here: one to find current
    versions, one to count.

    Args:
        train: rows in memory in place of `settings.paths`: a `datasets.Dataset`, a list of dicts or of Records.
        validation: the same; left out, a share of train is validation.

    Raises:
        SettingsError: an unknown source, column or block-list.
        InputMissingError: a path that nothing matches.
        DataError: bad input (unless `skip_bad`), parts that overlap, or nothing left to train on.
    """
    if train is None and validation is None:
        return corpus_of(open_parts(settings), settings)
    return corpus_of(_in_memory(settings, train, validation), settings)


def _in_memory(settings: DataSettings, train: Any, validation: Any) -> Opened:
    """The parts of rows that the caller holds, under the same rules as those of a file."""
    for name, wrong in (("data.paths", settings.paths), ("data.mix", settings.mix)):
        if wrong:
            raise SettingsError(f"rows are given in memory, and {name} names files too", where=name, fix="give one")
    if settings.streaming:
        raise SettingsError("rows in memory are not streamed", where="data.streaming", fix="data.streaming=false")
    if train is None:
        raise SettingsError("validation= is given and train= is not", where="train=", fix="give train= too")
    given: dict[Part, MemoryRows] = {"train": memory_rows("train", train, source=settings.source)}
    if validation is not None:
        given["validation"] = memory_rows("validation", validation, source=settings.source)
    return Opened([read_parts(settings, rules_of(settings), given)], None)


def corpus_of(opened: Opened, settings: DataSettings) -> Corpus:
    """The corpus of parts that are open; see `open_corpus`."""
    first, *others = every = opened.every
    train, validation = first.records["train"], first.records["validation"]
    if not len(train):
        raise DataError(
            f"nothing is left to train on: {first.tally}; {first.split}", where="data.paths", fix=_share_fix(first)
        )
    tally = sum((parts.tally for parts in others), first.tally)
    separation = [{"source": parts.source.name, **parts.apart.as_json()} for parts in every]
    mixture: list[Mixed] = []
    for parts in every:
        logger.info("%s: %s; %s", parts.source.name, parts.tally, parts.split)
    templates = _templates(every, settings)
    if opened.across is not None:
        separation.append({"source": BETWEEN, **opened.across.as_json()})
        for reason, count in opened.across.counts().items():
            tally = tally.drop(reason, count)
            logger.warning("%d records are held out by another source (%s) and left out", count, reason)
        validation = [record for parts in every for record in parts.records["validation"]]
        train, mixture = _mixed(every, settings)
    return Corpus(
        source=first.source,
        train=train,
        validation=validation,
        template=settings.template or first.source.template,
        templates=templates,
        files=tuple(item for parts in every for item in parts.inputs if isinstance(item, Path)),
        hashes=_all_hashes(every),
        tally=tally,
        license="; ".join(dict.fromkeys(parts.source.license for parts in every)),
        access=strictest(parts.source.access for parts in every),
        split="; ".join(f"{parts.source.name}: {parts.split}" for parts in every) if others else first.split,
        separation=separation,
        mixture=[asdict(one) for one in mixture],
    )


def _each(settings: DataSettings) -> list[DataSettings]:
    """The settings of each source on its own, the first one's first."""
    own = settings.model_copy(update={"mix": []})
    return [own, *(own.model_copy(update=vars(one)) for one in settings.mix)]


def _between(every: Sequence[Parts], settings: DataSettings) -> Separation:
    """What leaves a source because another one holds out its group, its words or a near-duplicate."""
    placed: Iterator[tuple[int, Part, Record]] = (
        (place, part, record)
        for place, parts in enumerate(every)
        for part in TRAINING_ORDER
        for record in parts.records[part]
    )
    return separate(placed, Rules("drop", settings.near_duplicate_similarity), frozenset(TRAINING_ORDER))


def _less(parts: Parts, across: Separation, place: int) -> Parts:
    """The parts without what another source holds out."""
    records: dict[Part, Records] = {
        part: [one for one in held if across.place(one, part, place) == part] for part, held in parts.records.items()
    }
    return replace(parts, records=records)


def _mixed(every: Sequence[Parts], settings: DataSettings) -> tuple[list[Record], list[Mixed]]:
    weights = [settings.weight, *(one.weight for one in settings.mix)]
    ingredients = [
        Ingredient(parts.source.name, weight, list(parts.records["train"]))
        for parts, weight in zip(every, weights, strict=True)
    ]
    records, mixture = mix(ingredients, settings.stopping_strategy, settings.split_seed)
    for one in mixture:
        logger.info("%s: %d of %d records, %.1f%% of the mixture", one.name, one.rows, one.available, 100 * one.share)
    return records, mixture


def _templates(every: Sequence[Parts], settings: DataSettings) -> dict[str, str]:
    found: dict[str, str] = {}
    for parts, chosen in zip(every, [settings.template, *(one.template for one in settings.mix)], strict=True):
        name = chosen or parts.source.template
        if found.setdefault(parts.source.name, name) != name:
            raise SettingsError(
                f"the source {parts.source.name!r} is mixed in with two templates, {found[parts.source.name]!r} and "
                f"{name!r}",
                where="data.mix",
                fix="one template for each source",
            )
    return found


def _all_hashes(every: Sequence[Parts]) -> dict[str, str]:
    """The hashes of all inputs; in a mixture two sources may have files of one name, so the source stands before it."""
    if len(every) == 1:
        return _hashes(every[0])
    return {
        f"{number}. {parts.source.name}: {name}": digest
        for number, parts in enumerate(every, 1)
        for name, digest in _hashes(parts).items()
    }


def _hashes(parts: Parts) -> dict[str, str]:
    """Name -> SHA-256 of each input; of very many files, one SHA-256 over all names and hashes."""
    names = numbered_names(parts.inputs)
    found = {name: parts.readings.get(name) or sha256_file(cast(Path, item)) for item, name in names.items()}
    if len(found) <= MOST_HASHES:
        return found
    listed = "".join(f"{digest}  {name}\n" for name, digest in found.items())
    return {f"{parts.source.name}, {len(found):,} files": hashlib.sha256(listed.encode()).hexdigest()}


def open_heldout(
    settings: DataSettings,
    split: HeldOutSplit,
    *,
    hold_out_all: bool = False,
    most_training: int = 0,
    with_validation: bool = False,
) -> HeldOutRecords:
    """The records of one held-out split, which `open_corpus` keeps from training; of a mixture, those of `source`.

    Args:
        hold_out_all: files without a split of their own belong to `split` altogether.
        most_training: so many training records of the same source at most come along, to learn from.
        with_validation: the validation records come along too; none where `split` is validation itself.

    Raises:
        DataError: the split is empty; the message says how the splits were made.
    """
    own = settings.model_copy(update={"mix": []})
    if hold_out_all and not names_parts(own):
        shares = {"validation_share": 0.0, "test_share": 0.0, f"{split}_share": 1.0}
        own = own.model_copy(update=shares)
    parts = read_parts(own, rules_of(settings))
    if not len(parts.records[split]):
        raise DataError(f"the {split} part is empty: {parts.split}", where="data.paths", fix=_share_fix(parts, split))
    return HeldOutRecords(
        records=tuple(parts.records[split]),
        access=parts.source.access,
        source=settings.source,
        split=split,
        training=tuple(islice(parts.records["train"], most_training)),
        validation=tuple(parts.records["validation"]) if with_validation and split != "validation" else (),
    )


def open_parts(settings: DataSettings) -> Opened:
    """Every part of each source, the test part too: to count and describe, as `data check` does, never to train."""
    rules = rules_of(settings)
    every = [read_parts(one, rules) for one in _each(settings)]
    if len(every) == 1:
        return Opened(every, None)
    across = _between(every, settings)
    return Opened([_less(parts, across, place) for place, parts in enumerate(every)], across)


def _share_fix(parts: Parts, split: str = "train") -> str:
    if split == "train":
        return "give more data, or lower data.validation_share and data.test_share"
    return f"raise data.{split}_share, or give the published {split} file beside the training file"
