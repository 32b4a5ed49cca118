"""A published adapter, opened: its card read, its base found and compared, its files and tensors checked."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import Card, read_card
from lora_med.adapters.store.store import CONFIG, FILES, WEIGHTS
from lora_med.adapters.tensors.initialize import check_dora
from lora_med.adapters.tensors.method import Method, read_method
from lora_med.adapters.tensors.weights import check_tensors
from lora_med.errors import BaseMismatchError, InputMissingError, IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.models.base import Base
from lora_med.models.files.resolve import resolve_base
from lora_med.models.fingerprint import Fingerprint, folder_with

logger = logging.getLogger(__name__)


def open_adapter(base: Base, folder: Path) -> tuple[Method, dict[str, Any]]:
    """Method and tensors of a published adapter, after every check that can be made without PEFT."""
    card = read_card(folder)
    check_base(base.fingerprint, base.name, card, folder)
    _check_labels(base, card, folder)
    contents = read_files(folder, card)
    method = read_method(read_json(folder / CONFIG), where=str(folder / CONFIG))
    check_dora(method, base)
    tensors = parse_tensors(contents[WEIGHTS], folder / WEIGHTS)
    try:
        expected = method.expected(base.model)
    except SettingsError as error:
        raise IntegrityError(
            f"the adapter names layers that the base has not: {error.what}", where=str(folder)
        ) from error
    check_tensors(expected, tensors, where=folder)
    if base.quantization != card.base.quantization:
        logger.info("%s was trained on a %s base; this one: %s", card.name, card.base.quantization, base.quantization)
    return method, tensors


def _check_labels(base: Base, card: Card, where: Path) -> None:
    """Refuse an adapter that tags on a base that writes, the other way round, and one of other tags."""
    if tuple(card.labels) == base.labels:
        return
    wanted = f"tags tokens as {', '.join(card.labels)}" if card.labels else "writes text"
    found = f"has a head for {', '.join(base.labels)}" if base.labels else "is loaded to write text"
    raise BaseMismatchError(
        f"adapter {card.name!r} {wanted}, and the base {found}",
        where=str(where),
        fix="load_tagger(base, card.labels) gives the base it needs" if card.labels else "load_base gives it",
    )


def locate_base(card: Card, base: str | None, revision: str | None = None) -> tuple[Path, str]:
    """The folder of the base to use and the name it was asked for: the one given, else the one the card names.

    Raises:
        InputMissingError: it is not here.
    """
    asked = base if base is not None else card.base.name
    try:
        folder, _ = resolve_base(asked, revision or (card.base.revision if base is None else None))
    except InputMissingError as error:
        if base is not None:
            raise
        here = folder_with(card.base.fingerprint)
        marks = f"it is the one with weights {card.base.fingerprint.weights[:16]}"
        raise InputMissingError(
            f"the base {card.base.name!r} of adapter {card.name!r} is not here",
            where=error.where,
            fix=f"--base {here}" if here else f"give its folder with --base; {marks}",
        ) from error
    return folder, asked


def check_base(found: Fingerprint, name: str, card: Card, where: Path | str) -> None:
    """Refuse a base whose weights, tokenizer or template are not those the card names.

    Raises:
        BaseMismatchError: naming both fingerprints and the base to load.
    """
    differing = card.base.fingerprint.differing(found)
    if not differing:
        return
    lines = [
        f"  {part}: the adapter needs {getattr(card.base.fingerprint, part)[:16]}, "
        f"{name!r} has {getattr(found, part)[:16]}"
        for part in differing
    ]
    wanted = card.base.name + (f" at revision {card.base.revision}" if card.base.revision else "")
    here = folder_with(card.base.fingerprint)
    raise BaseMismatchError(
        f"adapter {card.name!r} was trained on another base:\n" + "\n".join(lines),
        where=str(where),
        fix=f"load the base it belongs to: {wanted}" + (f", as in {here}" if here else ""),
    )


def read_files(folder: Path, card: Card) -> dict[str, bytes]:
    """The adapter's files, each with the hash that its card gives.

    Raises:
        InputMissingError: a file is absent.
        IntegrityError: a file has changed since it was published, or the card names no hash for it.
    """
    contents = {}
    for name in FILES:
        path = folder / name
        if name not in card.files:
            raise IntegrityError(f"the card gives no hash for {name}", where=str(folder), fix="publish it again")
        if not path.is_file():
            raise InputMissingError(f"no {name} in the adapter", where=str(folder), fix="copy the adapter again")
        contents[name] = path.read_bytes()
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != card.files[name]:
            raise IntegrityError(
                f"{name} is not the file that was published: SHA-256 {found[:16]}, the card says "
                f"{card.files[name][:16]}",
                where=str(path),
                fix="copy the adapter again, or train it again",
            )
    return contents


def parse_tensors(content: bytes, path: Path) -> dict[str, Any]:
    """The tensors in the bytes of a safetensors file.

    Raises:
        IntegrityError: they are not one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise IntegrityError("not a safetensors file", where=str(path), fix="copy the adapter again") from error
