"""Which items are held out: the adapters' cards know how their data was split, so nobody has to say it again.

Scoring an adapter on items it was trained on is the easiest mistake there is. Where an adapter learned from the source
that is scored, the split must be the one it was trained under; another seed or share is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.adapters.store.card import Card
from lora_med.config.parse import parse
from lora_med.config.schema import DataSettings
from lora_med.data.catalog import find_source
from lora_med.errors import SettingsError

SPLITTING = (  # the last four too: they say what is near-duplicate to what, and so which group moves
    *("split_seed", "validation_share", "test_share", "fold", "leaks", "near_duplicate_similarity"),
    *("max_records", "decontaminate", "block_lists", "test_files"),
)
FILES = ("block_lists", "test_files")
READING = ("columns", "labels", "hub_split", "skip_bad", "keep_retracted", "streaming")


def heldout_settings(
    cards: Sequence[Card],
    *,
    source: str | None = None,
    paths: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> DataSettings:
    """The data settings to score under: those the first card of this source was trained with, then what is given.

    Args:
        cards: of the adapters to score; may be empty.
        source: name in the catalog; None takes the first card's.
        paths: files to read; none takes the card's.
        overrides: `data.key=value`, which win.

    Raises:
        SettingsError: no source or no path is known, or the split is not the one an adapter was trained under.
    """
    name = source or (sources_of(cards[0])[0] if cards else None)
    if name is None:
        raise SettingsError("no source is named", fix="--source pubmed, or name an adapter whose card knows it")
    find_source(name)
    known = next((card for card in cards if name in sources_of(card)), None)
    lines = [f"data.source={name}"]
    if known is not None:
        settings = trained_with(known, name)
        lines += [f"data.{key}={json.dumps(getattr(settings, key))}" for key in (*SPLITTING, *READING)]
        lines.append(f"data.paths={json.dumps(settings.paths)}")
    if paths:
        lines.append(f"data.paths={json.dumps(list(paths))}")
    found = parse(None, [*lines, *overrides]).data
    if not found.paths:
        raise SettingsError(f"no file of {name} is named", fix="--data PATH")
    for card in cards:
        if name in sources_of(card):
            _same_split(found, card)
    return found


def sources_of(card: Card) -> list[str]:
    """The sources an adapter learned from, the first one first."""
    return card.data.source.split("+")


def _settings(data: Any, source: str | None) -> DataSettings:
    """Data settings as a card holds them, of a mixture those of `source`; defaults for what an older card lacks."""
    known = {key: value for key, value in (data or {}).items() if key in DataSettings.model_fields}
    whole = DataSettings.model_validate(known)
    mixed = next((one for one in whole.mix if one.source == source and source != whole.source), None)
    return whole.model_copy(update={"mix": [], **(vars(mixed) if mixed is not None else {})})


def _leaves(parents: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trained adapters that a composed one goes back to."""
    return [leaf for one in parents for leaf in (_leaves(one["parents"]) if one.get("parents") else [one])]


def trained_with(card: Card, source: str | None = None) -> DataSettings:
    """The data settings an adapter was trained with; of a composed one, those of its first parent that knows `source`.

    Of a mixture they are those of `source`; defaults stand for what an older card lacks.
    """
    return _all_trained_with(card, source)[0]


def _all_trained_with(card: Card, source: str | None) -> list[DataSettings]:
    leaves = [one for one in _leaves(card.parents) if source is None or source in one["source"].split("+")]
    return [_settings(one["data"], source) for one in leaves] or [_settings(card.settings.get("data"), source)]


def _same_split(found: DataSettings, card: Card) -> None:
    for trained in _all_trained_with(card, found.source):
        _refuse_another_split(found, trained, card.name)


def _refuse_another_split(found: DataSettings, trained: DataSettings, name: str) -> None:
    differing = [key for key in SPLITTING if _placeless(key, found) != _placeless(key, trained)]
    if differing:
        lines = [f"data.{key}: trained with {getattr(trained, key)}, now {getattr(found, key)}" for key in differing]
        raise SettingsError(
            f"adapter {name!r} was trained under another split, so it may have seen these items:\n  "
            + "\n  ".join(lines),
            fix="leave the split as the card has it",
        )


def _placeless(key: str, settings: DataSettings) -> Any:
    """The setting's value, files by their names: a card holds no folder, and a file may have moved."""
    value = getattr(settings, key)
    return [re.split(r"[/:\\]", one)[-1] for one in value] if key in FILES and value is not None else value


def _trained_template(card: Card, source: str) -> str | None:
    leaf = next((str(one["template"]) for one in _leaves(card.parents) if one["source"] == source), None)
    if leaf is not None or source == sources_of(card)[0]:
        return leaf or card.template
    return trained_with(card, source).template


def choose_template(cards: Sequence[Card], source: str, given: str | None) -> str:
    """The prompt template: the one given, else the one that trained the first adapter of this source, else its own."""
    trained = next((_trained_template(card, source) for card in cards if source in sources_of(card)), None)
    return given or trained or find_source(source).template
