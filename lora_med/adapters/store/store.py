"""The store: one folder per adapter, published atomically; the card is written last."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_med.adapters.store.adapter_readme import render_readme
from lora_med.adapters.store.card import CARD, BaseIdentity, Card, DataFacts, read_card, shareable
from lora_med.adapters.tensors.initialize import trained_state
from lora_med.adapters.tensors.method import Method
from lora_med.adapters.tensors.weights import check_tensors
from lora_med.config.near_names import unknown
from lora_med.errors import InputMissingError, LoraMedError, OutputError, SettingsError
from lora_med.files import disk_errors, readable, sha256_file, write_atomic, write_json
from lora_med.folders import fresh_folder, replace_folder
from lora_med.models.base import Base
from lora_med.models.files.resolve import display_name
from lora_med.models.on_disk.stored_quantization import base_origin
from lora_med.models.tokens.vocabulary import tokens_of
from lora_med.run import keep_private, versions

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
README = "README.md"
FILES = (WEIGHTS, CONFIG, README)  # of every adapter, besides the card
CHAT_TEMPLATE = "chat_template.jinja"  # of an adapter that was trained with another template than its base's
STORE = "adapters"


def check_name(name: str) -> str:
    """`name`, if it is valid for an adapter; a path or a hidden name is not.

    Raises:
        SettingsError: it states the rule.
    """
    if not NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot name an adapter",
            where="adapter.name",
            fix="use at most 64 lower-case letters, digits, `_` and `-`; the first is a letter or digit",
        )
    return name


def check_loadable(name: str) -> str:
    """`name`, if PEFT can hold an adapter of that name: PEFT uses a ModuleDict, whose method names are reserved.

    Raises:
        SettingsError: the name is reserved or invalid.
    """
    import torch

    if hasattr(torch.nn.ModuleDict(), check_name(name)):
        raise SettingsError(
            f"{name!r} cannot name an adapter: PEFT reserves that word",
            where="adapter.name",
            fix=f"for example {name}-adapter",
        )
    return name


def list_adapters(store: Path | str = STORE) -> list[str]:
    """The names of the published adapters in `store`, sorted; a folder without a card is not one.

    A folder that may not be read is one: what it holds is not known.

    Raises:
        InputMissingError: the store may not be read.
    """
    folder = Path(store)
    with readable(folder):
        paths = list(folder.iterdir()) if folder.is_dir() else []
    return sorted(path.name for path in paths if NAME.fullmatch(path.name) and _may_hold_card(path))


def _may_hold_card(folder: Path) -> bool:
    try:
        return (folder / CARD).exists()
    except OSError:  # the folder may not be entered
        return True


def find_adapter(name: str, store: Path | str = STORE) -> Path:
    """The folder of a published adapter.

    Raises:
        SettingsError: the name is invalid (so no path outside the store can be opened).
        InputMissingError: no such adapter; the message has the nearest name.
    """
    folder = Path(store) / check_name(name)
    with readable(folder / CARD):
        is_published = (folder / CARD).exists()
    if not is_published:
        raise InputMissingError(
            unknown("adapter", name, list_adapters(store)), where=str(store), fix="lora-med adapters list"
        )
    return folder


def check_free(name: str, store: Path | str = STORE, *, overwrite: bool = False) -> Path:
    """The folder in which adapter `name` will be published; call this before training.

    Raises:
        SettingsError: the name is invalid.
        OutputError: the name is taken and `overwrite` is false, or the folder is not an adapter's.
    """
    folder = Path(store) / check_loadable(name)
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not (folder / CARD).is_file():
        raise OutputError(
            "the adapter's folder exists but holds no adapter",
            where=str(folder),
            fix="move it away, or choose another adapter.name",
        )
    if taken and not overwrite:
        raise OutputError(
            f"adapter {name!r} exists",
            where=str(folder),
            fix="choose another adapter.name, or set adapter.overwrite=true",
        )
    return folder


def publish(
    model: Any,
    *,
    base: Base,
    name: str,
    store: Path | str = STORE,
    template: str,
    data: DataFacts,
    settings: Mapping[str, Any],
    description: str = "",
    scores: Mapping[str, Any] | None = None,
    privacy: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    adapter: str = "default",
    state: Mapping[str, Any] | None = None,
) -> Path:
    """Write the trained adapter into the store atomically, relative to the original base; return its folder.

    Args:
        model: the trained PeftModel from `attach_new`.
        template: name of the prompt template used in training.
        privacy: what a training with differential privacy spent.
        settings: the resolved settings; absolute paths keep only their last part, secrets are removed.
        adapter: the adapter's name inside `model`.
        state: the gathered state dict, if the model is sharded over processes. Call on rank 0 only.

    Raises:
        OutputError: the name is taken.
        IntegrityError: a tensor is missing, misshaped or not finite; nothing is written.
    """
    target = check_free(name, store, overwrite=overwrite)
    method, tensors = trained_state(model, adapter, state)
    check_tensors(method.expected(model.get_base_model()), tensors, where=target)
    card = Card(
        name=name,
        description=description,
        base=BaseIdentity(
            name=display_name(base.name),
            revision=base.revision,
            fingerprint=base.fingerprint,
            quantization=base.quantization,
            dtype=base.dtype,
            origin=base_origin(base.folder),
        ),
        method=method.as_json(),
        template=template,
        data=replace(data, hashes=shareable(data.hashes)),
        settings=shareable(settings),
        scores=dict(scores or {}),
        versions=versions(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        files={},
        labels=list(base.labels),
        tokens=_tokens(model.get_base_model(), method),
        privacy=dict(privacy or {}),
    )
    bare = model.get_base_model()
    return write_adapter(target, card, method, tensors, bare, overwrite=overwrite, chat_template=base.chat_template)


def _tokens(model: Any, method: Method) -> dict[str, int]:
    """The tokens that the adapter trained, with their ids."""
    known = tokens_of(model) if method.trainable_token_indices else None
    return {} if known is None else dict(known.ids)


def write_adapter(
    target: Path,
    card: Card,
    method: Method,
    tensors: Mapping[str, Any],
    model: Any,
    *,
    overwrite: bool,
    chat_template: str | None = None,
) -> Path:
    """Write an adapter's folder at `target` atomically, with the card last; return the folder.

    Args:
        card: the card without the hashes of the files.
        model: the base, of which only the shapes are read.
        chat_template: the adapter's own; None writes no file, and the adapter uses that of its base.
    """

    def fill(folder: Path) -> None:
        _fill(folder, card, method, tensors, model, chat_template)

    if overwrite:
        return replace_folder(target, fill)
    with fresh_folder(target) as folder:
        fill(folder)
    return target


def _fill(
    folder: Path, card: Card, method: Method, tensors: Mapping[str, Any], model: Any, chat_template: str | None
) -> None:
    from safetensors.torch import save

    write_atomic(folder / WEIGHTS, save(dict(tensors), metadata={"format": "pt"}))
    write_json(folder / CONFIG, method.published_config(model, card.base.name))
    write_atomic(folder / README, render_readme(card, method, model, own_template=chat_template is not None))
    files = FILES if chat_template is None else (*FILES, CHAT_TEMPLATE)
    if chat_template is not None:
        write_atomic(folder / CHAT_TEMPLATE, chat_template)
    hashed = replace(card, files={file: sha256_file(folder / file) for file in files})
    for file in files:
        (folder / file).chmod(0o644)
    write_json(folder / CARD, hashed.as_json())
    (folder / CARD).chmod(0o644)
    folder.chmod(0o755)
    if card.data.access == "credentialed":
        keep_private(folder)


def remove(name: str, store: Path | str = STORE) -> Path:
    """Delete a published adapter, the card first, so that a kill leaves no adapter that looks intact.

    Raises:
        InputMissingError: no such adapter.
        OutputError: it is a link to a folder elsewhere, or cannot be deleted.
    """
    folder = find_adapter(name, store)
    if folder.is_symlink():
        raise OutputError(
            f"adapter {name!r} is a link to a folder elsewhere", where=str(folder), fix="remove the link, or the folder"
        )
    with disk_errors(folder):
        (folder / CARD).unlink()
        shutil.rmtree(folder)
    return folder


def cards(store: Path | str = STORE) -> dict[str, Card | LoraMedError]:
    """Name -> card of every adapter in the store, or the error raised when its card was read."""
    by_name: dict[str, Card | LoraMedError] = {}
    for name in list_adapters(store):
        try:
            by_name[name] = read_card(Path(store) / name)
        except LoraMedError as error:
            by_name[name] = error
    return by_name
