"""The door to data: settings in, training and validation records out. Training code cannot see the test part.

`open_corpus` never gives the test records; `open_heldout` gives one held-out part, for evaluation.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from lora_med.config.schema import DataSettings
from lora_med.data.access import Access, strictest
from lora_med.data.catalog import Source
from lora_med.data.contamination import identifiers_of
from lora_med.data.mixture import Ingredient, Mixed, mix
from lora_med.data.outcome import Input, Tally, numbered_names
from lora_med.data.parts import Parts, Records, Stream, read_parts
from lora_med.data.reading import content
from lora_med.data.record import Record
from lora_med.errors import DataError, SettingsError
from lora_med.files import sha256_file

__all__ = ["Corpus", "Records", "Stream", "open_corpus", "open_heldout", "open_parts"]
logger = logging.getLogger(__name__)
MOST_HASHES = 64  # that a card lists one by one


@dataclass(frozen=True)
class Corpus:
    """What a run trains on. `split` says in words how the parts were made.

    `template` is that of the first source; `templates` maps each source's name to its own. `hashes` maps each file's
    name to its SHA-256, for provenance (one over all where there are very many); a Hub data set has that of what was
    read. `separation` says, by source, what was taken out or moved to keep the parts apart, and `mixture` what each
    source gave (both as JSON values).
    """

    source: Source
    train: Records
    validation: Records
    template: str
    templates: dict[str, str]
    files: tuple[Path, ...]
    hashes: dict[str, str]
    tally: Tally
    licence: str
    access: Access
    split: str
    separation: dict[str, Any]
    mixture: list[dict[str, Any]]


def open_corpus(settings: DataSettings) -> Corpus:
    """The training and validation records that `settings` name, checked, split, kept apart, mixed and counted.

    With `settings.streaming` the records are re-read at every pass and two passes are made here: one to find current
    versions, one to count.

    Raises:
        SettingsError: an unknown source, column or block-list.
        InputMissingError: a path that nothing matches.
        DataError: bad input (unless `skip_bad`), parts that overlap, or nothing left to train on.
    """
    first, *others = every = open_parts(settings)
    train = first.records["train"]
    if not len(train):
        raise DataError(
            f"nothing is left to train on: {first.tally}; {first.split}", where="data.paths", fix=_share_fix(first)
        )
    mixture: list[Mixed] = []
    if others:
        train, mixture = _mixed(every, settings)
    validation = [record for parts in every for record in parts.records["validation"]] if others else None
    for parts in every:
        logger.info("%s: %s; %s", parts.source.name, parts.tally, parts.split)
    return Corpus(
        source=first.source,
        train=train,
        validation=first.records["validation"] if validation is None else validation,
        template=settings.template or first.source.template,
        templates=_templates(every, settings),
        files=tuple(item for parts in every for item in parts.inputs if isinstance(item, Path)),
        hashes={name: digest for parts in every for name, digest in _hashes(parts).items()},
        tally=sum((parts.tally for parts in others), first.tally),
        licence="; ".join(dict.fromkeys(parts.source.licence for parts in every)),
        access=strictest(parts.source.access for parts in every),
        split="; ".join(f"{parts.source.name}: {parts.split}" for parts in every) if others else first.split,
        separation={parts.source.name: parts.apart.as_json() for parts in every},
        mixture=[asdict(one) for one in mixture],
    )


def _each(settings: DataSettings) -> list[DataSettings]:
    """The settings of each source on its own, the first one's first."""
    own = settings.model_copy(update={"mix": []})
    return [own, *(own.model_copy(update=vars(one)) for one in settings.mix)]


def _mixed(every: Sequence[Parts], settings: DataSettings) -> tuple[list[Record], list[Mixed]]:
    """The mixture of the train parts, less what any source holds out under the same identifier or in the same words."""
    held_out: set[str | int] = set()
    for parts in every:
        for record in (*parts.records["validation"], *parts.records["test"]):
            held_out |= {*identifiers_of(record), content(record)}
    weights = [settings.weight, *(one.weight for one in settings.mix)]
    ingredients: list[Ingredient] = []
    for parts, weight in zip(every, weights, strict=True):
        train = [one for one in parts.records["train"] if held_out.isdisjoint({*identifiers_of(one), content(one)})]
        if lost := len(parts.records["train"]) - len(train):
            logger.warning("%s: %d records of train are held out by another source", parts.source.name, lost)
        ingredients.append(Ingredient(parts.source.name, weight, train))
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


def _hashes(parts: Parts) -> dict[str, str]:
    """Name -> SHA-256 of each input; of very many files, one SHA-256 over all names and hashes."""
    found = {name: parts.readings.get(name) or sha256_file(cast(Path, item)) for item, name in _names(parts)}
    if len(found) <= MOST_HASHES:
        return found
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(found.items()))
    return {f"{parts.source.name}, {len(found):,} files": hashlib.sha256(listed.encode()).hexdigest()}


def open_heldout(settings: DataSettings, split: Literal["validation", "test"]) -> list[Record]:
    """The records of one held-out part: the same that `open_corpus` kept from training.

    Raises:
        DataError: the part is empty; the message says how the parts were made.
    """
    parts = read_parts(settings)
    records = list(parts.records[split])
    if not records:
        raise DataError(f"the {split} part is empty: {parts.split}", where="data.paths", fix=_share_fix(parts, split))
    return records


def open_parts(settings: DataSettings) -> list[Parts]:
    """Every part of each source, the test part too: to count and describe, as `data check` does, never to train."""
    return [read_parts(one) for one in _each(settings)]


def _share_fix(parts: Parts, split: str = "train") -> str:
    if split == "train":
        return "give more data, or lower data.validation_share and data.test_share"
    return f"raise data.{split}_share, or give the published {split} file beside the training file"


def _names(parts: Parts) -> list[tuple[Input, str]]:
    return list(numbered_names(parts.inputs).items())
