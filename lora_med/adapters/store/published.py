"""Open a published adapter once: read the card, hash the files, locate the base and compare its fingerprint.

A command or public call first calls `open_published` and passes the result on. The hashed bytes are the bytes that are
used: no later code opens the adapter's folder again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.adapters.store.base_data import base_data
from lora_med.adapters.store.base_match import check_base, check_labels, locate_base
from lora_med.adapters.store.card import CARD, Card, DataFacts, parse_card, read_card_bytes
from lora_med.adapters.store.store import CHAT_TEMPLATE, CONFIG, FILES, STORE, WEIGHTS, find_adapter
from lora_med.adapters.tensors.initialize import check_dora
from lora_med.adapters.tensors.method import Method, read_method
from lora_med.adapters.tensors.weights import check_tensors
from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.files import read_json, readable
from lora_med.models.base import Base
from lora_med.models.fingerprint import fingerprint
from lora_med.models.limits.budget import name_template
from lora_med.models.tokens.vocabulary import add_tokens

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AdapterFiles:
    """The card and the verified files of an adapter; `contents` maps each file's name, card.json's too, to its bytes.

    The base is not compared yet: `with_base` does this for a base on disk, `fit_to` for a loaded base.
    """

    folder: Path
    card: Card
    contents: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """The adapter's name in the store."""
        return self.folder.name

    @property
    def card_sha256(self) -> str:
        """SHA-256 of card.json."""
        return hashlib.sha256(self.contents[CARD]).hexdigest()

    @property
    def config(self) -> dict[str, Any]:
        """The content of adapter_config.json."""
        return read_json(self.folder / CONFIG, self.contents[CONFIG])

    @property
    def method(self) -> Method:
        """The method in adapter_config.json; IntegrityError if it is not supported."""
        return read_method(self.config, where=str(self.folder / CONFIG))

    @property
    def chat_template(self) -> str | None:
        """The chat template it was trained with, where that is not its base's own."""
        content = self.contents.get(CHAT_TEMPLATE)
        try:
            return None if content is None else content.decode("utf-8")
        except UnicodeDecodeError as error:
            where = str(self.folder / CHAT_TEMPLATE)
            raise IntegrityError("the chat template is not UTF-8", where=where, fix="copy the adapter again") from error

    def tensors(self) -> dict[str, Any]:
        """The tensors by PEFT's names, parsed from the verified bytes at each call."""
        return parse_tensors(self.contents[WEIGHTS], self.folder / WEIGHTS)


@dataclass(frozen=True, eq=False)
class Published(AdapterFiles):
    """An adapter with its base located on disk; the base has the fingerprint in the card.

    `base` is its folder, `base_name` the name from the caller or the card, and `revision` its Hub commit, if any.
    """

    base: Path
    base_name: str
    revision: str | None

    @property
    def data(self) -> DataFacts:
        """The data that the adapter and its base learned from, under the strictest class of both."""
        of_base = base_data(self.base_name, self.base)
        return self.card.data if of_base is None else of_base.joined(self.card.data)


def open_published(
    name: str, store: Path | str = STORE, base: str | None = None, revision: str | None = None
) -> Published:
    """Open adapter `name` of the store: read card, hash files, locate base, compare fingerprints, each once.

    Args:
        base: folder, Hub id or `micro`; None uses the base in the card.
        revision: of a base on the Hub; None uses the revision in the card.

    Raises:
        SettingsError: `name` cannot name an adapter.
        InputMissingError: there is no such adapter, or its base is not on this machine.
        BaseMismatchError: the adapter was trained on another base.
        IntegrityError: a file differs from the published one.
    """
    return with_base(open_files(find_adapter(name, store)), base, revision)


def open_files(folder: Path) -> AdapterFiles:
    """The card and the verified files of the adapter in `folder`; no base is required.

    Raises:
        InputMissingError: a file is absent.
        IntegrityError: the card cannot be read, or a file differs from the published one.
    """
    content = read_card_bytes(folder)
    card = parse_card(content, folder)
    adapter = AdapterFiles(folder, card, {**read_files(folder, card), CARD: content})
    name_template(adapter.chat_template, str(folder / CHAT_TEMPLATE))
    return adapter


def with_base(adapter: AdapterFiles, base: str | None = None, revision: str | None = None) -> Published:
    """The adapter with its base on disk, which is located and compared as in `open_published`."""
    card = adapter.card
    base_folder, base_name = locate_base(card, base, revision)
    check_base(fingerprint(base_folder), base_name, card, adapter.folder)
    commit = revision or (card.base.revision if base is None else None)
    return Published(adapter.folder, card, adapter.contents, base_folder, base_name, commit)


def fit_to(adapter: AdapterFiles, base: Base) -> tuple[Method, dict[str, Any]]:
    """Method and tensors of an adapter for a loaded base, after every check that does not need PEFT.

    The base gets the tokens that the adapter trained: its tokenizer then has them (`add_tokens`).

    Raises:
        BaseMismatchError: the adapter was trained on another base, or with other labels.
        SettingsError: the base has the tokens of another adapter, with which these cannot be together.
        IntegrityError: a tensor is missing, left over, misshaped or not finite.
    """
    card, folder = adapter.card, adapter.folder
    check_base(base.fingerprint, base.name, card, folder)
    check_labels(base, card, folder)
    method = adapter.method
    check_dora(method, base)
    if card.tokens:
        add_tokens(base, card.tokens)
    tensors = adapter.tensors()
    try:
        expected = method.expected(base.model)
    except SettingsError as error:
        raise IntegrityError(
            f"the adapter names layers that the base does not have: {error.what}", where=str(folder)
        ) from error
    check_tensors(expected, tensors, where=folder)
    if adapter.chat_template not in (None, base.chat_template):
        logger.warning(
            "%s was trained with a chat template of its own, and this base has another: "
            "base.with_chat_template(adapter.chat_template) gives it",
            card.name,
        )
    if base.quantization != card.base.quantization:
        logger.info(
            "%s was trained on a base with quantization %s; this base has %s",
            card.name,
            card.base.quantization,
            base.quantization,
        )
    return method, tensors


def shared_chat_template(adapters: Sequence[AdapterFiles]) -> str | None:
    """The chat template that the adapters were trained with, if it is not their base's own.

    Raises:
        SettingsError: they were trained with different ones.
    """
    by_template = {adapter.chat_template: adapter.name for adapter in adapters}
    if len(by_template) > 1:
        raise SettingsError(
            f"{' and '.join(by_template.values())} were trained with different chat templates, so they have no rows in "
            "common",
            where="--adapter",
            fix="score or combine them separately",
        )
    return next(iter(by_template), None)


def read_files(folder: Path, card: Card) -> dict[str, bytes]:
    """The adapter's files, after their hashes are compared with those in the card.

    Raises:
        InputMissingError: a file is absent.
        IntegrityError: a file has changed since it was published, or the card has no hash for it.
    """
    contents = {}
    for name in (*FILES, *(name for name in card.files if name == CHAT_TEMPLATE)):
        path = folder / name
        if name not in card.files:
            raise IntegrityError(f"the card has no hash for {name}", where=str(folder), fix="publish it again")
        if not path.exists():
            raise InputMissingError(f"no {name} in the adapter", where=str(folder), fix="copy the adapter again")
        with readable(path):
            contents[name] = path.read_bytes()
        digest = hashlib.sha256(contents[name]).hexdigest()
        if digest != card.files[name]:
            raise IntegrityError(
                f"{name} is not the file that was published: SHA-256 {digest[:16]}, the card says "
                f"{card.files[name][:16]}",
                where=str(path),
                fix="copy the adapter again, or train it again",
            )
    return contents


def parse_tensors(content: bytes, path: Path) -> dict[str, Any]:
    """The tensors in the bytes of a safetensors file.

    Raises:
        IntegrityError: the bytes are not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise IntegrityError("not a safetensors file", where=str(path), fix="copy the adapter again") from error
