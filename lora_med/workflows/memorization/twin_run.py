"""The twin of a run: the same settings and data as an adapter's, and canaries among the training records.

The twin is never published. So the audited adapter holds no canary, and what the canaries show of the twin holds for
trainings with these settings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lora_med.adapters.store.card import Card
from lora_med.adapters.store.published import Published
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.data.corpus import Corpus, Stream
from lora_med.data.record import Record
from lora_med.errors import IntegrityError, SettingsError
from lora_med.files import write_atomic

SETTINGS, TEMPLATE = "twin.yaml", "twin_chat_template.jinja"
logger = logging.getLogger(__name__)


def refuse_unauditable(card: Card) -> None:
    """Refuse an adapter of which no training with settings of ours is known, or that writes no text.

    Raises:
        SettingsError: it tags tokens, or was composed or adopted.
    """
    where = "card.json"
    if card.labels:
        raise SettingsError(
            f"{card.name!r} tags tokens: it writes no text, and its base has no head to compare it with",
            where=where,
            fix="audit an adapter that writes",
        )
    if card.parents:
        named = ", ".join(str(parent.get("name")) for parent in card.parents)
        raise SettingsError(f"{card.name!r} was composed, not trained", where=where, fix=f"audit its parents: {named}")
    if "train" not in card.settings or "data" not in card.settings:
        raise SettingsError(
            f"the card of {card.name!r} has no settings of a training, so no twin can be trained",
            where=where,
            fix="audit an adapter that lora_med trained",
        )


def twin_settings(
    adapter: Published, store: Path, folder: Path, *, data: Sequence[str] = (), overrides: Sequence[str] = ()
) -> Settings:
    """The settings of the adapter's card, for a run that writes into `folder`; they are written there too.

    Args:
        store: where an adapter is that this one continues.
        data: files in place of those that the card names.
        overrides: `section.key=value`, which win.

    Raises:
        SettingsError: a setting is wrong, no file is named, or the records are streamed.
    """
    card = adapter.card
    known = Settings()
    values: dict[str, dict[str, Any]] = {}
    for section in ("model", "data", "lora", "train", "adapter", "evaluate"):
        names = type(getattr(known, section)).model_fields
        own = card.settings.get(section, {})
        values[section] = {name: value for name, value in own.items() if name in names}
        unknown = sorted(set(own) - set(names))
        if unknown:
            logger.warning("settings of the card that this version does not have: %s", ", ".join(unknown))
    values["model"] |= {"base": adapter.base_name, "revision": adapter.revision}
    if adapter.chat_template is not None:
        values["model"]["chat_template"] = str(write_atomic(folder / TEMPLATE, adapter.chat_template, private=True))
    if data:
        values["data"]["paths"] = list(data)
    values["train"] |= {"output_dir": str(folder / "twin"), "report_to": "none", "resume": "auto"}
    values["adapter"] |= {"store": str(store), "overwrite": True, "access": card.data.access}
    file = write_atomic(folder / SETTINGS, yaml.safe_dump(values, sort_keys=False, allow_unicode=True), private=True)
    settings = parse(file, list(overrides))
    if not settings.data.paths:
        raise SettingsError(
            f"{card.name!r} learned from rows in memory, or its card names no file",
            where="card.json: settings.data.paths",
            fix="--data PATH, the files with these rows",
        )
    if settings.data.streaming:
        raise SettingsError(
            "the run streamed its records, and canaries cannot be put among them",
            where="data.streaming",
            fix="add data.streaming=false, if the records fit into memory",
        )
    return settings


def check_same_data(card: Card, corpus: Corpus) -> None:
    """Refuse other files than those the adapter learned from.

    Raises:
        IntegrityError: their hashes differ.
    """
    known, here = sorted(card.data.hashes.values()), sorted(corpus.hashes.values())
    if known != here:
        raise IntegrityError(
            f"these are not the files that {card.name!r} learned from: {len(set(here) - set(known))} of {len(here)} "
            "have another SHA-256",
            where="--data, against card.json: data.hashes",
            fix="give the same files, unchanged",
        )
    if card.data.counts.get("train") not in (None, len(corpus.train)):
        logger.warning(
            "the run trained on %s records and %d are read now: the settings that decide the split, or the code that "
            "reads, have changed",
            card.data.counts["train"],
            len(corpus.train),
        )


def with_canaries(corpus: Corpus, records: Sequence[Record], sha256: str) -> Corpus:
    """The corpus with these records after its training records; the sealed list's hash joins those of the files."""
    assert not isinstance(corpus.train, Stream)
    train = [*corpus.train, *records]
    return replace(corpus, train=train, hashes={**corpus.hashes, "canaries (sealed list)": sha256})
