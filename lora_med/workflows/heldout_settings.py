"""Which items are held out: the adapters' cards record how their data was split, so no user repeats it.

Scoring an adapter on its own training items is the easiest mistake. If an adapter learned from the scored source, the
split must be the one of its training; another seed or share is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import Card
from lora_med.config.data_settings import DataSettings
from lora_med.config.parse import parse
from lora_med.data.access import Access, strictest
from lora_med.data.catalog import find_source
from lora_med.errors import SettingsError
from lora_med.files import sha256_file

SPLITTING = (  # the last four decide which records are near-duplicates, and so which group moves to another split
    *("split_seed", "validation_share", "test_share", "fold", "leaks", "near_duplicate_similarity"),
    *("max_records", "decontaminate", "block_lists", "test_files"),
)
FILES = ("block_lists", "test_files")
READING = (
    *("columns", "ignore_columns", "answer_form", "labels", "encoding", "delimiter", "sheet"),
    *("hub_split", "skip_bad", "keep_retracted", "streaming"),
)


def heldout_settings(
    cards: Sequence[Card],
    *,
    source: str | None = None,
    paths: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> DataSettings:
    """The data settings to score under: those of the first card with this source, changed by what is given.

    Args:
        cards: those of the adapters to score; may be empty.
        source: name in the catalog; None takes the first card's.
        paths: files to read; none takes the card's.
        overrides: `data.key=value`, which win.

    Raises:
        SettingsError: no source or path is known, or an adapter was trained under another split.
    """
    source_name = source or (sources_of(cards[0])[0] if cards else None)
    if source_name is None:
        raise SettingsError("no source is named", fix="--source pubmed, or name an adapter whose card records it")
    find_source(source_name)
    trained_card = next((card for card in cards if source_name in sources_of(card)), None)
    lines = [f"data.source={source_name}"]
    if trained_card is not None:
        settings = trained_with(trained_card, source_name)
        lines += [f"data.{key}={json.dumps(getattr(settings, key))}" for key in (*SPLITTING, *READING)]
        lines.append(f"data.paths={json.dumps(settings.paths)}")
    if paths:
        lines.append(f"data.paths={json.dumps(list(paths))}")
    chosen = parse(None, [*lines, *overrides]).data
    if not chosen.paths:
        raise SettingsError(f"no file of {source_name} is named", fix="--data PATH")
    for card in cards:
        if source_name in sources_of(card):
            _check_split(chosen, card)
    return chosen


def stated_class(cards: Sequence[Card], settings: DataSettings) -> Access | None:
    """The access class of the first card that learned from the very files that are scored; None if there is none.

    The class was stated for those files only, so another file of the same source needs a statement of its own.
    """
    files = [Path(path).expanduser() for path in settings.paths]
    if not all(path.is_file() for path in files):
        return None
    digests = {sha256_file(path) for path in files}
    for card in cards:
        if settings.source in sources_of(card) and digests <= set(card.data.hashes.values()):
            return strictest([card.data.access])
    return None


def sources_of(card: Card) -> list[str]:
    """The sources an adapter learned from, in the order of its mixture."""
    return card.data.source.split("+")


def _settings(data: Any, source: str | None) -> DataSettings:
    """A card's data settings; for a mixture those of `source`, and defaults for what an older card lacks."""
    values = {key: value for key, value in (data or {}).items() if key in DataSettings.model_fields}
    settings = DataSettings.model_validate(values)
    ingredient = next((mixed for mixed in settings.mix if mixed.source == source and source != settings.source), None)
    return settings.model_copy(update={"mix": [], **(vars(ingredient) if ingredient is not None else {})})


def _trained_ancestors(parents: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trained adapters that a composed adapter was made from."""
    return [
        ancestor
        for parent in parents
        for ancestor in (_trained_ancestors(parent["parents"]) if parent.get("parents") else [parent])
    ]


def trained_with(card: Card, source: str | None = None) -> DataSettings:
    """The data settings an adapter was trained with; for a composed one, those of its first parent with `source`.

    For a mixture they are those of `source`; defaults replace what an older card lacks.
    """
    return _all_trained_with(card, source)[0]


def _all_trained_with(card: Card, source: str | None) -> list[DataSettings]:
    ancestors = [
        ancestor
        for ancestor in _trained_ancestors(card.parents)
        if source is None or source in ancestor["source"].split("+")
    ]
    return [_settings(ancestor["data"], source) for ancestor in ancestors] or [
        _settings(card.settings.get("data"), source)
    ]


def _check_split(settings: DataSettings, card: Card) -> None:
    for trained in _all_trained_with(card, settings.source):
        _refuse_another_split(settings, trained, card.name)


def _refuse_another_split(settings: DataSettings, trained: DataSettings, name: str) -> None:
    differing = [key for key in SPLITTING if _without_folders(key, settings) != _without_folders(key, trained)]
    if differing:
        lines = [f"data.{key}: trained with {getattr(trained, key)}, now {getattr(settings, key)}" for key in differing]
        raise SettingsError(
            f"adapter {name!r} was trained under another split, so it may have seen these items:\n  "
            + "\n  ".join(lines),
            where=", ".join(f"data.{key}" for key in differing),
            fix="leave these settings out: the card's own are used",
        )


def _without_folders(key: str, settings: DataSettings) -> Any:
    """The setting's value, files by their names: a card records no folder, and a file may have moved."""
    value = getattr(settings, key)
    return [re.split(r"[/:\\]", path)[-1] for path in value] if key in FILES and value is not None else value


def _trained_template(card: Card, source: str) -> str | None:
    template = next(
        (str(ancestor["template"]) for ancestor in _trained_ancestors(card.parents) if ancestor["source"] == source),
        None,
    )
    if template is not None or source == sources_of(card)[0]:
        return template or card.template
    return trained_with(card, source).template


def choose_template(cards: Sequence[Card], source: str, template: str | None) -> str:
    """`template`, else that of the first adapter trained on this source, else the source's."""
    trained = next((_trained_template(card, source) for card in cards if source in sources_of(card)), None)
    return template or trained or find_source(source).template
