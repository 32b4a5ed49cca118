"""The models that a request can name: the bare base and the loaded adapters, with what their cards say of them."""

from __future__ import annotations

import calendar
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_med.adapters.store.base_data import base_access
from lora_med.adapters.store.base_match import check_base
from lora_med.adapters.store.card import Card
from lora_med.adapters.store.on_validation import OnValidation
from lora_med.adapters.store.published import Published, open_published
from lora_med.adapters.store.store import WEIGHTS
from lora_med.audit_trail import recorded
from lora_med.config.near_names import unknown
from lora_med.data.access import CREDENTIALED, require_permission
from lora_med.errors import NotPermittedError, SettingsError
from lora_med.evaluation.tasks import SCORINGS
from lora_med.models.base import Base
from lora_med.models.files.resolve import display_name
from lora_med.serving.answer_identity import system_fingerprint
from lora_med.serving.web.error_bodies import ApiError

if TYPE_CHECKING:
    from lora_med.serving.engine import Engine

logger = logging.getLogger(__name__)
OWNER = "lora_med"


@dataclass(frozen=True)
class ServedModel:
    """A name that can be asked; `sha256` is that of the adapter's weights, None for the bare base.

    `identity` is the engine's, of all that shapes the adapter's answers.
    """

    name: str
    adapter: str | None
    sha256: str | None
    fingerprint: str
    created: int
    facts: dict[str, Any]
    identity: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry of /v1/models."""
        own = {"id": self.name, "object": "model", "created": self.created, "owned_by": OWNER}
        return own | {"sha256": self.sha256, "system_fingerprint": self.fingerprint} | self.facts


@dataclass(frozen=True)
class Audience:
    """Who can ask: the person at this terminal alone (`is_local`), or whoever reaches the server.

    `permission` is the written one for credentialed data; with `has_keys` every request needs a key.
    """

    is_local: bool = False
    permission: str | None = None
    has_keys: bool = False

    def admit(self, card: Card) -> None:
        """Refuse an adapter that this audience may not ask, or that writes no text.

        Raises:
            NotPermittedError: it comes from credentialed data, and the key or the permission is missing.
            SettingsError: it tags tokens.
        """
        if card.labels:
            raise SettingsError(
                f"adapter {card.name!r} tags tokens and writes no text, so it cannot be asked",
                where="--adapter",
                fix="recipes/tag_entities.py shows how it is used",
            )
        self._admit_class(card.data.access, card.name)

    def admit_base(self, base: str, folder: Path) -> None:
        """Refuse a base that holds what this audience may not ask: a merged model of credentialed data.

        Raises:
            NotPermittedError: the key or the permission is missing.
            IntegrityError: its certificate cannot be read.
        """
        access = base_access(base, folder)
        if access is not None:
            self._admit_class(access, display_name(base))

    def _admit_class(self, access: str, name: str) -> None:
        if self.is_local:
            return
        if access == CREDENTIALED and not self.has_keys:
            raise NotPermittedError(
                f"serving {name!r} is not permitted without a key: it comes from credentialed data",
                where="the data's access class",
                fix="--api-key-file FILE, as docs/serving.md shows",
            )
        require_permission(access, f"serving {name!r}", self.permission)


class ServedModels:
    """The table of names beside an engine; `load` and `unload` change both. Thread-safe."""

    def __init__(self, engine: Engine, base: Base, store: Path, audience: Audience) -> None:
        self._engine, self._base, self._store, self._audience = engine, base, store, audience
        self._changing = threading.Lock()  # one load or unload at a time; requests never wait for it
        self.base_name = display_name(base.name)
        self._adapters: dict[str, ServedModel] = {}
        self._bare = self._describe_base()

    @property
    def all(self) -> list[ServedModel]:
        """Every model that can be asked, the base first."""
        return [self._bare, *self._adapters.values()]

    def find(self, name: str) -> ServedModel:
        """The model of this name.

        Raises:
            ApiError: 404; no other model answers for it.
        """
        model = self._bare if name == self.base_name else self._adapters.get(name)
        if model is None:
            known = [one.name for one in self.all]
            raise ApiError(404, unknown("model", name[:80], known), code="model_not_found", param="model")
        return model

    def add(self, opened: Published) -> tuple[ServedModel, str | None]:
        """Load an opened adapter; returns it and the SHA-256 of the one that it replaces, if any.

        Raises:
            LoraMedError: it cannot be served here; nothing has changed.
        """
        check_name_is_free([opened.name], self._base.name)
        self._audience.admit(opened.card)
        check_base(self._base.fingerprint, self._base.name, opened.card, opened.folder)
        with self._changing:
            before = self._adapters.get(opened.name)
            replaced = None if before is None else before.sha256
            about = {"sha256": opened.card.files[WEIGHTS], "replaced": replaced, "access": opened.data.access}
            with self._recorded("load", adapter=opened.name, **about):
                loaded = self._engine.load(opened.name, opened)
                model = replace(self._describe(opened), identity=loaded.identity)
                self._adapters[opened.name] = model
        logger.info("adapter %s, SHA-256 %s, is loaded", model.name, (model.sha256 or "")[:16])
        return model, replaced

    def load(self, name: str) -> tuple[ServedModel, str | None]:
        """Load an adapter of the store by its name, or replace the one of that name; see `add`."""
        return self.add(open_published(name, self._store, self._base.name, self._base.revision))

    def unload(self, name: str) -> None:
        """Take an adapter away; running requests finish on its weights.

        Raises:
            ApiError: 404 if no adapter of this name is loaded, 409 for the base.
        """
        if self.find(name) is self._bare:
            raise ApiError(409, "the base cannot be unloaded", code="is_base", param="name")
        with self._changing, self._recorded("unload", adapter=name):
            self._engine.unload(name)
            self._adapters.pop(name, None)
        logger.info("adapter %s is unloaded", name)

    def _recorded(self, action: str, **facts: Any) -> AbstractContextManager[object]:
        """The action in the audit trail, where others than the person at this terminal can ask."""
        if self._audience.is_local:
            return nullcontext()
        return recorded(action, base=self.base_name, pid=os.getpid(), **facts)

    def _describe_base(self) -> ServedModel:
        base = self._base
        fingerprint = system_fingerprint(base.fingerprint, base.quantization, base.dtype, None)
        facts = {
            "root": self.base_name,
            "parent": None,
            **self._loaded_as(),
            "access": base_access(base.name, base.folder),
        }
        return ServedModel(self.base_name, None, None, fingerprint, int(time.time()), facts)

    def _describe(self, opened: Published) -> ServedModel:
        base, card = self._base, opened.card
        fingerprint = system_fingerprint(base.fingerprint, base.quantization, base.dtype, card)
        facts = {
            "root": self.base_name,
            "parent": self.base_name,
            **self._loaded_as(),
            "template": card.template,
            "access": opened.data.access,
            "license": card.data.license,
            "evaluation": last_evaluation(card),
        }
        created = _seconds(card.created)
        return ServedModel(opened.name, opened.name, card.files[WEIGHTS], fingerprint, created, facts)

    def _loaded_as(self) -> dict[str, Any]:
        base = self._base
        return {"base_sha256": base.fingerprint.weights, "quantization": base.quantization, "dtype": base.dtype}


def check_name_is_free(names: Sequence[str], base: str) -> None:
    """Refuse an adapter that has the name by which the base is asked.

    Raises:
        SettingsError: one has it.
    """
    taken = display_name(base)
    if taken in names:
        raise SettingsError(
            f"adapter and base are both called {taken!r}, so a request could not say which it means",
            where="--adapter",
            fix="publish the adapter under another name",
        )


def last_evaluation(card: Card) -> dict[str, Any] | None:
    """The verdict of the last evaluation in a card, else that on validation, else None."""
    scored = {
        name: entry
        for name, entry in card.scores.items()
        if isinstance(entry, dict) and entry.get("scoring") in SCORINGS
    }
    for name in sorted(scored, key=lambda name: str(scored[name].get("created", "")), reverse=True):
        entry = scored[name]
        measure = SCORINGS[entry["scoring"]].verdict_by
        numbers = entry.get("measures", {}).get(measure)
        if numbers is not None:
            return {
                "on": name,
                "measure": measure,
                "verdict": numbers["change"]["verdict"],
                "value": numbers["value"],
                "base": numbers["base"],
                "n": entry["n"],
            }
    validation = OnValidation.of(card.scores)
    if validation is None:
        return None
    return {
        "on": "validation",
        "measure": validation.metric,
        "verdict": validation.verdict,
        "value": validation.value,
        "base": validation.start,
        "n": validation.items,
    }


def _seconds(created: str) -> int:
    """A card's time in seconds since 1970; 0 where it is not one."""
    try:
        return calendar.timegm(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return 0


def one_quantization(cards: Sequence[Card]) -> str:
    """The quantization that all adapters were trained on.

    Raises:
        SettingsError: they differ, so the user has to choose.
    """
    by_quantization = {card.base.quantization: card.name for card in cards}
    if len(by_quantization) > 1:
        named = " and ".join(f"{name} on {weights}" for weights, name in sorted(by_quantization.items()))
        raise SettingsError(
            f"the adapters were trained on the base in different formats: {named}",
            where="--adapter",
            fix="choose one for all with --quantization, or serve them separately",
        )
    return next(iter(by_quantization))
