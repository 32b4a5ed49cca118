"""Is an adapter still what was published, and is its base here? Everything is computed again, nothing remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import CARD, Card, read_card
from lora_med.adapters.store.published import parse_tensors, read_files
from lora_med.adapters.store.store import CONFIG, FILES, WEIGHTS
from lora_med.adapters.tensors.method import read_method
from lora_med.adapters.tensors.weights import check_tensors
from lora_med.errors import InputMissingError, IntegrityError, LoraMedError
from lora_med.files import read_json
from lora_med.models.files.resolve import resolve_base
from lora_med.models.fingerprint import fingerprint
from lora_med.models.skeleton import skeleton


@dataclass(frozen=True)
class Check:
    """One thing verified: `outcome` is ok, wrong, or skipped, and `detail` says what was found."""

    what: str
    outcome: str
    detail: str


@dataclass(frozen=True)
class Verification:
    """All checks of one adapter; `whole` if none came out wrong."""

    name: str
    checks: tuple[Check, ...]

    @property
    def whole(self) -> bool:
        """Whether no check came out wrong; a skipped one does not count."""
        return all(check.outcome != "wrong" for check in self.checks)


def verify(folder: Path, base: str | None = None) -> Verification:
    """Check an adapter's card, files, hashes and tensors and, if the base is here, its fingerprint and shapes.

    Args:
        base: where the base lies, if the card's name does not lead to it.

    Raises:
        InputMissingError: no adapter there. Every other fault is a check with outcome "wrong".
    """
    if not (folder / CARD).is_file():
        raise InputMissingError(f"no adapter in {folder.name!r}", where=str(folder), fix="lora-med adapters list")
    found: dict[str, Any] = {}
    checks = [_try("card", lambda: _card(folder, found))]
    if "card" in found:
        card: Card = found["card"]
        checks.append(_try("files", lambda: _files(folder)))
        checks.append(_try("hashes", lambda: _hashes(folder, card, found)))
        checks.append(_try("base", lambda: _base(card, base, found)))
    if "contents" in found:
        checks.append(_try("tensors", lambda: _tensors(folder, found)))
    return Verification(folder.name, tuple(checks))


def _try(what: str, check: Callable[[], Check | str]) -> Check:
    try:
        outcome = check()
    except LoraMedError as error:
        return Check(what, "wrong", error.what)
    return outcome if isinstance(outcome, Check) else Check(what, "ok", outcome)


def _card(folder: Path, found: dict[str, Any]) -> str:
    card = read_card(folder)
    if card.name != folder.name:
        raise IntegrityError(f"the card names {card.name!r}, the folder {folder.name!r}")
    found["card"] = card
    return f"published {card.created}, access {card.data.access}"


def _files(folder: Path) -> str:
    allowed = {*FILES, CARD}
    extra = sorted(path.name for path in folder.iterdir() if path.name not in allowed or not path.is_file())
    if extra:
        raise IntegrityError(f"{len(extra)} files that are not the adapter's, such as {extra[0]}")
    absent = sorted(name for name in allowed if not (folder / name).is_file())
    if absent:
        raise IntegrityError(f"{len(absent)} of {len(allowed)} files are absent, such as {absent[0]}")
    return f"{len(allowed)} files, {sum((folder / name).stat().st_size for name in allowed):,} bytes"


def _hashes(folder: Path, card: Card, found: dict[str, Any]) -> str:
    found["contents"] = read_files(folder, card)
    return f"{len(card.files)} SHA-256 as published"


def _base(card: Card, base: str | None, found: dict[str, Any]) -> Check | str:
    try:
        folder, _ = resolve_base(base or card.base.name, None if base else card.base.revision, here_only=True)
    except InputMissingError:
        return Check("base", "skipped", f"{card.base.name} is not on this machine; --base PATH names it")
    differing = card.base.fingerprint.differing(fingerprint(folder, fresh=True))
    if differing:
        raise IntegrityError(f"{base or card.base.name} has other {' and '.join(differing)} than the adapter's base")
    found["base"] = folder
    return f"{card.base.name}: weights, tokenizer and template are those it was trained on"


def _tensors(folder: Path, found: dict[str, Any]) -> str:
    tensors = parse_tensors(found["contents"][WEIGHTS], folder / WEIGHTS)
    method = read_method(read_json(folder / CONFIG), where=str(folder / CONFIG))
    if "base" in found:
        expected = method.expected(skeleton(found["base"], labels=len(found["card"].labels)))
        shapes = "with the names and shapes that the base needs"
    else:
        expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes = "shapes unchecked without the base"
    check_tensors(expected, tensors, where=folder)
    count = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors)} tensors, {count:,} numbers, all finite, {shapes}"
