"""Verify that an adapter is still as published and that its base is on this machine. No cache is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from lora_med.adapters.store.card import CARD, Card, parse_card, read_card_bytes
from lora_med.adapters.store.published import AdapterFiles, read_files
from lora_med.adapters.store.store import CHAT_TEMPLATE, FILES
from lora_med.adapters.tensors.weights import check_tensors
from lora_med.errors import InputMissingError, IntegrityError, LoraMedError
from lora_med.models.files.resolve import resolve_base
from lora_med.models.fingerprint import fingerprint
from lora_med.models.skeleton import skeleton
from lora_med.models.tokens.vocabulary import grow_shapes
from lora_med.signatures import SIGNATURES, changed_since, check_signature

Value = TypeVar("Value")


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


def verify(folder: Path, base: str | None = None, key: Path | None = None) -> Verification:
    """Check an adapter's card, files, hashes and tensors and, if the base is here, its fingerprint and shapes.

    Args:
        base: the location of the base, if it cannot be resolved from the card.
        key: a public key; then the adapter has to be signed with it.

    Raises:
        InputMissingError: the folder holds no adapter. Every other problem is a check with outcome "wrong".
    """
    if not (folder / CARD).is_file():
        raise InputMissingError(f"no adapter in {folder.name!r}", where=str(folder), fix="lora-med adapters list")
    card_check, card_and_content = _run_check("card", partial(_read_card, folder))
    if card_and_content is None:
        return Verification(folder.name, (card_check,))
    card, content = card_and_content
    files_check, _ = _run_check("files", partial(_list_files, folder, card))
    hashes_check, adapter = _run_check("hashes", partial(_hash_files, folder, card, content))
    base_check, base_folder = _check_base(card, base)
    checks = [card_check, files_check, hashes_check, base_check]
    if adapter is not None:
        tensors_check, _ = _run_check("tensors", partial(_read_tensors, adapter, base_folder))
        checks.append(tensors_check)
    checks += _check_signature(folder, key)
    return Verification(folder.name, tuple(checks), adapter)


def _check_signature(folder: Path, key: Path | None) -> list[Check]:
    """The check of the signature; without a key only that of its list, and none for an adapter that nobody signed."""
    if key is not None:
        return [_run_check("signature", partial(_read_signature, folder, key))[0]]
    if not (folder / SIGNATURES).exists():
        return []
    check, _ = _run_check("signature", partial(_read_signed_list, folder))
    return [check if check.outcome == "wrong" else replace(check, outcome="skipped")]


def _read_signed_list(folder: Path) -> tuple[str, None]:
    problems = changed_since(folder)
    if problems:
        raise IntegrityError(f"{problems[0]} since it was signed")
    return "signed; set the signer's public key with --key PUBLIC.pem", None


def _read_signature(folder: Path, key: Path) -> tuple[str, None]:
    signed = check_signature(folder, key)
    return f"{len(signed.files)} files signed {signed.signed} with the key {signed.key_id[:16]}", None


def _run_check(what: str, action: Callable[[], tuple[str, Value]]) -> tuple[Check, Value | None]:
    """The check made of `action`, which returns a detail and a value; no value if it raises an error of ours."""
    try:
        detail, value = action()
    except LoraMedError as error:
        return Check(what, "wrong", error.what), None
    return Check(what, "ok", detail), value


def _read_card(folder: Path) -> tuple[str, tuple[Card, bytes]]:
    content = read_card_bytes(folder)
    card = parse_card(content, folder)
    if card.name != folder.name:
        raise IntegrityError(f"the card names {card.name!r}, the folder {folder.name!r}")
    return f"published {card.created}, access {card.data.access}", (card, content)


def _list_files(folder: Path, card: Card) -> tuple[str, None]:
    allowed = {*FILES, CARD, *({CHAT_TEMPLATE} & card.files.keys())}
    present = [path for path in folder.iterdir() if path.name != SIGNATURES]
    extra = sorted(path.name for path in present if path.name not in allowed or not path.is_file())
    if extra:
        raise IntegrityError(f"{len(extra)} files do not belong to the adapter, such as {extra[0]}")
    absent = sorted(name for name in allowed if not (folder / name).is_file())
    if absent:
        raise IntegrityError(f"{len(absent)} of {len(allowed)} files are absent, such as {absent[0]}")
    return f"{len(allowed)} files, {sum((folder / name).stat().st_size for name in allowed):,} bytes", None


def _hash_files(folder: Path, card: Card, content: bytes) -> tuple[str, AdapterFiles]:
    adapter = AdapterFiles(folder, card, {**read_files(folder, card), CARD: content})
    return f"{len(card.files)} SHA-256 hashes as published", adapter


def _check_base(card: Card, base: str | None) -> tuple[Check, Path | None]:
    """The check of the base, skipped if it is not on this machine, and its folder if it is the adapter's base."""
    try:
        folder, _ = resolve_base(base or card.base.name, None if base else card.base.revision, here_only=True)
    except InputMissingError:
        detail = f"{card.base.name} is not on this machine; set its folder with --base PATH"
        return Check("base", "skipped", detail), None
    except LoraMedError as error:
        return Check("base", "wrong", error.what), None
    return _run_check("base", partial(_compare_base, card, base, folder))


def _compare_base(card: Card, base: str | None, folder: Path) -> tuple[str, Path]:
    differing = card.base.fingerprint.differing(fingerprint(folder, fresh=True))
    if differing:
        raise IntegrityError(f"{base or card.base.name} differs from the adapter's base in {' and '.join(differing)}")
    return f"{card.base.name}: weights, tokenizer and template are those of the training", folder


def _read_tensors(adapter: AdapterFiles, base: Path | None) -> tuple[str, None]:
    tensors, method = adapter.tensors(), adapter.method
    if base is not None:
        expected = method.expected(grow_shapes(skeleton(base, labels=len(adapter.card.labels)), adapter.card.tokens))
        shapes = "with the names and shapes that the base requires"
    else:
        expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes = "shapes not checked without the base"
    check_tensors(expected, tensors, where=adapter.folder)
    count = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors)} tensors, {count:,} numbers, all finite, {shapes}", None
