"""The base that an adapter belongs to: located on this machine, and any other base refused."""

from __future__ import annotations

from pathlib import Path

from lora_med.adapters.store.card import Card
from lora_med.errors import BaseMismatchError, InputMissingError
from lora_med.models.base import Base
from lora_med.models.files.resolve import resolve_base
from lora_med.models.fingerprint import Fingerprint, folder_with


def check_labels(base: Base, card: Card, where: Path) -> None:
    """Refuse a tagging adapter on a base that generates text, the reverse, and an adapter with other labels."""
    if tuple(card.labels) == base.labels:
        return
    trained = f"tags tokens as {', '.join(card.labels)}" if card.labels else "generates text"
    actual = f"has a head for {', '.join(base.labels)}" if base.labels else "is loaded to generate text"
    raise BaseMismatchError(
        f"adapter {card.name!r} {trained}, but the base {actual}",
        where=str(where),
        fix="load_tagger(base, card.labels) loads the base it needs" if card.labels else "load_base loads it",
    )


def locate_base(card: Card, base: str | None, revision: str | None = None) -> tuple[Path, str]:
    """The folder and the name of the base to use: `base`, or else the base in the card.

    Raises:
        InputMissingError: the base is not on this machine.
    """
    base_name = base if base is not None else card.base.name
    try:
        folder, _ = resolve_base(base_name, revision or (card.base.revision if base is None else None))
    except InputMissingError as error:
        if base is not None:
            raise
        folder_here = folder_with(card.base.fingerprint)
        hint = f"its weights have SHA-256 {card.base.fingerprint.weights[:16]}"
        raise InputMissingError(
            f"the base {card.base.name!r} of adapter {card.name!r} is not here",
            where=error.where,
            fix=f"--base {folder_here}" if folder_here else f"set its folder with --base; {hint}",
        ) from error
    return folder, base_name


def check_base(actual: Fingerprint, name: str, card: Card, where: Path | str) -> None:
    """Refuse a base whose weights, tokenizer or template differ from those in the card.

    Raises:
        BaseMismatchError: it names both fingerprints and the base to load.
    """
    differing = card.base.fingerprint.differing(actual)
    if not differing:
        return
    lines = [
        f"  {part}: the adapter needs {getattr(card.base.fingerprint, part)[:16]}, "
        f"{name!r} has {getattr(actual, part)[:16]}"
        for part in differing
    ]
    recorded_name = card.base.name + (f" at revision {card.base.revision}" if card.base.revision else "")
    folder_here = folder_with(card.base.fingerprint)
    raise BaseMismatchError(
        f"adapter {card.name!r} was trained on another base:\n" + "\n".join(lines),
        where=str(where),
        fix=f"load the base of the adapter: {recorded_name}" + (f", as in {folder_here}" if folder_here else ""),
    )
