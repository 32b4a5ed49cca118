"""The door to data: settings in, training and validation records out. Training code cannot see the test split.

`open_corpus` never returns the test records; `open_heldout` returns one held-out split, for evaluation.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from lora_med.config.data_settings import DataSettings
from lora_med.data.access import Access, ask, combined, handled_as
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.in_memory import MemoryRows, memory_rows
from lora_med.data.mixture import Ingredient, Mixed, mix
from lora_med.data.outcome import Tally, numbered_names
from lora_med.data.record import HeldOutSplit, Record, Split
from lora_med.data.scanning.record_streams import Records, Stream
from lora_med.data.source import Source
from lora_med.data.splitting.build_splits import (
    Splits,
    has_named_splits,
    holds_only_test_items,
    read_splits,
    rules_of,
)
from lora_med.data.splitting.leakage import TRAINING_ORDER, Decontamination, Rules, decontaminate
from lora_med.data.splitting.split_plans import hold_out
from lora_med.errors import DataError, SettingsError
from lora_med.files import sha256_file

__all__ = ["Corpus", "Records", "Stream", "corpus_of", "open_corpus", "open_heldout", "open_splits"]
logger = logging.getLogger(__name__)
BETWEEN = "between the sources"
MOST_HASHES = 64  # that a card lists one by one


@dataclass(frozen=True)
class Corpus:
    """What a run trains on. `split_description` states how the splits were made.

    `template` is that of the first source; `templates` maps each source's name to its own. `hashes` maps each file's
    name to its SHA-256, in the order of reading. Very many files have one hash over all; in a mixture the source
    precedes the name. The hash of a Hub data set is of the rows read. `decontamination` lists for each source, then for
    all together, what was removed or moved so that no split leaks into another. `mixture` lists the rows of each
    source, and `columns` which columns of each were used. All are JSON values. `access` is None where nobody stated the
    class: the rows are then handled as credentialed, and no run trains on them.
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
    access: Access | None
    split_description: str
    decontamination: list[dict[str, Any]]
    mixture: list[dict[str, Any]]
    columns: list[dict[str, Any]]


@dataclass(frozen=True)
class OpenedSplits:
    """All splits of each source, the test split too.

    `between_sources` lists the records removed because another source holds them out.
    """

    sources: list[Splits]
    between_sources: Decontamination | None


def open_corpus(
    settings: DataSettings, *, train: Any = None, validation: Any = None, access: Access | None = None
) -> Corpus:
    """The training and validation records that `settings` name, checked, split, decontaminated, mixed and counted.

    With `settings.streaming` the records are re-read at every pass and two passes are made here: one to find current
    versions, one to count.

    Args:
        train: rows in memory in place of `settings.paths`: a `datasets.Dataset`, a list of dicts or of Records.
        validation: the same; left out, a share of train is validation.
        access: the class of your own data, `adapter.access` in the settings; a stricter one of the source wins.

    Raises:
        SettingsError: an unknown source, column or block-list.
        InputMissingError: a path that nothing matches.
        DataError: bad input (unless `skip_bad`), splits that overlap, or nothing left to train on.
    """
    if train is None and validation is None:
        return corpus_of(open_splits(settings, access), settings)
    return corpus_of(_in_memory(settings, train, validation, access), settings)


def _in_memory(settings: DataSettings, train: Any, validation: Any, access: Access | None) -> OpenedSplits:
    """The splits of rows that the caller holds, under the same rules as those of a file."""
    for name, value in (("data.paths", settings.paths), ("data.mix", settings.mix)):
        if value:
            raise SettingsError(f"rows are given in memory, and {name} names files too", where=name, fix="give one")
    if settings.streaming:
        raise SettingsError("rows in memory are not streamed", where="data.streaming", fix="data.streaming=false")
    if train is None:
        raise SettingsError("validation= is given and train= is not", where="train=", fix="give train= too")
    rows_by_split: dict[Split, MemoryRows] = {"train": memory_rows("train", train, source=settings.source)}
    if validation is not None:
        rows_by_split["validation"] = memory_rows("validation", validation, source=settings.source)
    return OpenedSplits([read_splits(settings, rules_of(settings), rows_by_split, access=access)], None)


def corpus_of(opened: OpenedSplits, settings: DataSettings) -> Corpus:
    """The corpus of splits that are open; see `open_corpus`."""
    first, *others = sources = opened.sources
    train, validation = first.records["train"], first.records["validation"]
    if not len(train):
        what = f"nothing is left to train on: {first.tally}; {first.description}"
        raise DataError(what, where="data.paths", fix=_share_fix(first))
    tally = sum((splits.tally for splits in others), first.tally)
    decontamination = [{"source": splits.source.name, **splits.decontamination.as_json()} for splits in sources]
    mixture: list[Mixed] = []
    for splits in sources:
        logger.info("%s: %s; %s", splits.source.name, splits.tally, splits.description)
    templates = _templates(sources, settings)
    if opened.between_sources is not None:
        decontamination.append({"source": BETWEEN, **opened.between_sources.as_json()})
        for reason, count in opened.between_sources.counts().items():
            tally = tally.drop(reason, count)
            logger.warning("%d records are held out by another source (%s) and left out", count, reason)
        validation = [record for splits in sources for record in splits.records["validation"]]
        train, mixture = _mixed(sources, settings)
    return Corpus(
        source=first.source,
        train=train,
        validation=validation,
        template=settings.template or first.source.template,
        templates=templates,
        files=tuple(item for splits in sources for item in splits.inputs if isinstance(item, Path)),
        hashes=_all_hashes(sources),
        tally=tally,
        license="; ".join(dict.fromkeys(splits.source.license for splits in sources)),
        access=combined(splits.source.access for splits in sources),
        split_description="; ".join(f"{splits.source.name}: {splits.description}" for splits in sources)
        if others
        else first.description,
        decontamination=decontamination,
        mixture=[asdict(mixed) for mixed in mixture],
        columns=[{"source": splits.source.name, **splits.columns} for splits in sources if splits.columns["used"]],
    )


def _settings_by_source(settings: DataSettings) -> list[DataSettings]:
    """The settings of each source on its own, the first one's first."""
    own = settings.model_copy(update={"mix": []})
    return [own, *(own.model_copy(update=vars(other)) for other in settings.mix)]


def _between(sources: Sequence[Splits], settings: DataSettings) -> Decontamination:
    """What leaves a source because another one holds out its group, its words or a near-duplicate."""
    assigned: Iterator[tuple[int, Split, Record]] = (
        (number, split, record)
        for number, splits in enumerate(sources)
        for split in TRAINING_ORDER
        for record in splits.records[split]
    )
    return decontaminate(assigned, Rules("drop", settings.near_duplicate_similarity), frozenset(TRAINING_ORDER))


def _without_held_out_elsewhere(splits: Splits, between_sources: Decontamination, number: int) -> Splits:
    """The splits without what another source holds out."""
    records: dict[Split, Records] = {
        split: [record for record in held if between_sources.final_split(record, split, number) == split]
        for split, held in splits.records.items()
    }
    return replace(splits, records=records)


def _mixed(sources: Sequence[Splits], settings: DataSettings) -> tuple[list[Record], list[Mixed]]:
    weights = [settings.weight, *(mixed.weight for mixed in settings.mix)]
    ingredients = [
        Ingredient(splits.source.name, weight, list(splits.records["train"]))
        for splits, weight in zip(sources, weights, strict=True)
    ]
    records, mixture = mix(ingredients, settings.stopping_strategy, settings.split_seed)
    for mixed in mixture:
        logger.info(
            "%s: %d of %d records, %.1f%% of the mixture", mixed.name, mixed.rows, mixed.available, 100 * mixed.share
        )
    return records, mixture


def _templates(sources: Sequence[Splits], settings: DataSettings) -> dict[str, str]:
    templates: dict[str, str] = {}
    for splits, named in zip(sources, [settings.template, *(other.template for other in settings.mix)], strict=True):
        name = named or splits.source.template
        if templates.setdefault(splits.source.name, name) != name:
            first = templates[splits.source.name]
            raise SettingsError(
                f"the source {splits.source.name!r} is mixed in with two templates, {first!r} and {name!r}",
                where="data.mix",
                fix="one template for each source",
            )
    return templates


def _all_hashes(sources: Sequence[Splits]) -> dict[str, str]:
    """The hashes of all inputs; in a mixture two sources may have files of one name, so the source precedes it."""
    if len(sources) == 1:
        return _hashes(sources[0])
    return {
        f"{number}. {splits.source.name}: {name}": digest
        for number, splits in enumerate(sources, 1)
        for name, digest in _hashes(splits).items()
    }


def _hashes(splits: Splits) -> dict[str, str]:
    """Name -> SHA-256 of each input; of very many files, one SHA-256 over all names and hashes."""
    names = numbered_names(splits.inputs)
    hashes = {name: splits.readings.get(name) or sha256_file(cast(Path, item)) for item, name in names.items()}
    if len(hashes) <= MOST_HASHES:
        return hashes
    listed = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    return {f"{splits.source.name}, {len(hashes):,} files": hashlib.sha256(listed.encode()).hexdigest()}


def open_heldout(
    settings: DataSettings,
    split: HeldOutSplit,
    *,
    hold_out_all: bool = False,
    most_training: int = 0,
    with_validation: bool = False,
    access: Access | None = None,
) -> HeldOutRecords:
    """The records of one held-out split, which `open_corpus` keeps from training; of a mixture, those of `source`.

    Block-lists take nothing out of `split`. Files that hold nothing but items of block-lists belong to it altogether,
    because no training ever saw them.

    Args:
        hold_out_all: files without a split of their own belong to `split` altogether.
        most_training: so many training records of the same source at most come along, to learn from.
        with_validation: the validation records come along too; none where `split` is validation itself.
        access: the class of your own data; without one they are handled as credentialed, and the log asks for it.

    Raises:
        DataError: the split is empty; the message states how the splits were made.
    """
    own, rules = settings.model_copy(update={"mix": []}), rules_of(settings, split)
    if (hold_out_all and not has_named_splits(own)) or holds_only_test_items(own, rules):
        own = hold_out(own, split)
    splits = read_splits(own, rules, access=access)
    if splits.source.access is None:
        ask(splits.source.name, "--access ")
    if not len(splits.records[split]):
        raise DataError(
            f"the {split} split is empty: {splits.description}", where="data.paths", fix=_share_fix(splits, split)
        )
    return HeldOutRecords(
        records=tuple(splits.records[split]),
        access=handled_as(splits.source.access),
        source=settings.source,
        split=split,
        training=tuple(islice(splits.records["train"], most_training)),
        validation=tuple(splits.records["validation"]) if with_validation and split != "validation" else (),
        published=splits.published.get(split),
        left_out=splits.left_out.get(split, {}),
    )


def open_splits(settings: DataSettings, access: Access | None = None) -> OpenedSplits:
    """Every split of each source, the test split too: to count and describe, as `data check` does, never to train."""
    rules = rules_of(settings)
    sources = [read_splits(own, rules, access=access) for own in _settings_by_source(settings)]
    if len(sources) == 1:
        return OpenedSplits(sources, None)
    between_sources = _between(sources, settings)
    return OpenedSplits(
        [_without_held_out_elsewhere(splits, between_sources, number) for number, splits in enumerate(sources)],
        between_sources,
    )


def _share_fix(splits: Splits, split: str = "train") -> str:
    if split == "train":
        return "give more data, or lower data.validation_share and data.test_share"
    return f"raise data.{split}_share, or give the published {split} file beside the training file"
