"""A published adapter that tags tokens, opened on its base with the labels of its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.attach import attach_opened
from lora_med.adapters.store.base_match import locate_base
from lora_med.adapters.store.published import AdapterFiles, open_files
from lora_med.adapters.store.store import STORE, find_adapter
from lora_med.errors import SettingsError
from lora_med.models.base import Base
from lora_med.models.tagging import load_tagger


def open_tagger(
    name: str, store: Path | str = STORE, *, base: str | None = None, dtype: str = "auto"
) -> tuple[Base, Any]:
    """A published adapter that tags tokens: its base with the labels of the card, and the model.

    Args:
        base: where the base is, if it is not where the card says.

    Raises:
        SettingsError: the adapter writes text.
        InputMissingError: the adapter or its base is not here.
        BaseMismatchError: the base is another one.
    """
    return load_opened_tagger(open_files(find_adapter(name, store)), base=base, dtype=dtype)


def load_opened_tagger(adapter: AdapterFiles, *, base: str | None = None, dtype: str = "auto") -> tuple[Base, Any]:
    """What `open_tagger` returns, for an adapter that is already open: no file of it is read again.

    Raises:
        SettingsError, InputMissingError, BaseMismatchError: as `open_tagger`.
    """
    card = adapter.card
    if not card.labels:
        raise SettingsError(
            f"adapter {adapter.name!r} writes text, and has no labels",
            where=str(adapter.folder),
            fix=f"lora-med eval --adapter {adapter.name}",
        )
    _, base_name = locate_base(card, base)
    loaded = load_tagger(
        base_name,
        card.labels,
        quantization=card.base.quantization,
        dtype=dtype,
        revision=card.base.revision if base is None else None,
    )
    return loaded, attach_opened(loaded, adapter)
