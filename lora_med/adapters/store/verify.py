"""Verify that an adapter is still as published and that its base is on this machine. No cache is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import CARD, Card, parse_card, read_card_bytes
from lora_med.adapters.store.published import AdapterFiles, read_files
from lora_med.adapters.store.store import FILES
from lora_med.adapters.tensors.weights import check_tensors
from lora_med.errors import InputMissingError, IntegrityError, LoraMedError
from lora_med.models.files.resolve import resolve_base
from lora_med.models.fingerprint import fingerprint
from lora_med.models.skeleton import skeleton


@dataclass(frozen=True)
class Check:
    """One check: `outcome` is ok, wrong, or skipped; `detail` describes the result."""

    what: str
    outcome: str
    detail: str


@dataclass(frozen=True)
class Verification:
    """All checks of one adapter.

    `files` are the card and the hashed files with their bytes; None if one of them is wrong.
    """

    name: str
    checks: tuple[Check, ...]
    files: AdapterFiles | None = field(default=None, repr=False)

    @property
    def intact(self) -> bool:
        """Whether no check is wrong; a skipped check does not count."""
        return all(check.outcome != "wrong" for check in self.checks)


def verify(folder: Path, base: str | None = None) -> Verification:
    """Check an adapter's card, files, hashes and tensors and, if the base is here, its fingerprint and shapes.

    Args:
        base: the location of the base, if it cannot be resolved from the card.

    Raises:
        InputMissingError: the folder holds no adapter. Every other problem is a check with outcome "wrong".
    """
    if not (folder / CARD).is_file():
        raise InputMissingError(f"no adapter in {folder.name!r}", where=str(folder), fix="lora-med adapters list")
    facts: dict[str, Any] = {}
    checks = [_try("card", lambda: _card(folder, facts))]
    if "card" in facts:
        card: Card = facts["card"]
        checks.append(_try("files", lambda: _files(folder)))
        checks.append(_try("hashes", lambda: _hashes(folder, facts)))
        checks.append(_try("base", lambda: _base(card, base, facts)))
    if "files" in facts:
        checks.append(_try("tensors", lambda: _tensors(facts)))
    return Verification(folder.name, tuple(checks), facts.get("files"))


def _try(what: str, check: Callable[[], Check | str]) -> Check:
    try:
        outcome = check()
    except LoraMedError as error:
        return Check(what, "wrong", error.what)
    return outcome if isinstance(outcome, Check) else Check(what, "ok", outcome)


def _card(folder: Path, facts: dict[str, Any]) -> str:
    facts["content"] = read_card_bytes(folder)
    card = parse_card(facts["content"], folder)
    if card.name != folder.name:
        raise IntegrityError(f"the card names {card.name!r}, the folder {folder.name!r}")
    facts["card"] = card
    return f"published {card.created}, access {card.data.access}"


def _files(folder: Path) -> str:
    allowed = {*FILES, CARD}
    extra = sorted(path.name for path in folder.iterdir() if path.name not in allowed or not path.is_file())
    if extra:
        raise IntegrityError(f"{len(extra)} files do not belong to the adapter, such as {extra[0]}")
    absent = sorted(name for name in allowed if not (folder / name).is_file())
    if absent:
        raise IntegrityError(f"{len(absent)} of {len(allowed)} files are absent, such as {absent[0]}")
    return f"{len(allowed)} files, {sum((folder / name).stat().st_size for name in allowed):,} bytes"


def _hashes(folder: Path, facts: dict[str, Any]) -> str:
    card: Card = facts["card"]
    facts["files"] = AdapterFiles(folder, card, {**read_files(folder, card), CARD: facts["content"]})
    return f"{len(card.files)} SHA-256 hashes as published"


def _base(card: Card, base: str | None, facts: dict[str, Any]) -> Check | str:
    try:
        folder, _ = resolve_base(base or card.base.name, None if base else card.base.revision, here_only=True)
    except InputMissingError:
        return Check("base", "skipped", f"{card.base.name} is not on this machine; set its folder with --base PATH")
    differing = card.base.fingerprint.differing(fingerprint(folder, fresh=True))
    if differing:
        raise IntegrityError(f"{base or card.base.name} differs from the adapter's base in {' and '.join(differing)}")
    facts["base"] = folder
    return f"{card.base.name}: weights, tokenizer and template are those of the training"


def _tensors(facts: dict[str, Any]) -> str:
    adapter: AdapterFiles = facts["files"]
    tensors, method = adapter.tensors(), adapter.method
    if "base" in facts:
        expected = method.expected(skeleton(facts["base"], labels=len(adapter.card.labels)))
        shapes = "with the names and shapes that the base requires"
    else:
        expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes = "shapes not checked without the base"
    check_tensors(expected, tensors, where=adapter.folder)
    count = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors)} tensors, {count:,} numbers, all finite, {shapes}"
