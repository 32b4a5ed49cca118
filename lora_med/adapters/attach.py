"""Adapters onto a base: a new one to train, or a published one to use, each refused where it does not belong.

What is attached is checked before PEFT sees it: the base's fingerprint, the files' hashes, and each tensor's name,
shape and finiteness. Nothing is loaded by the path or base name that a file of the adapter gives.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_med.adapters.card import Card, read_card
from lora_med.adapters.method import Method, method_for, read_method, refuse_other_shape
from lora_med.adapters.start import PEFT_NAMES, START, check_dora, check_start, seeded, start_from_base
from lora_med.adapters.store import CONFIG, FILES, STORE, WEIGHTS, check_loadable, find_adapter
from lora_med.adapters.weights import adapter_parameters, check_tensors, put_tensors
from lora_med.config.schema import LoraSettings
from lora_med.errors import BaseMismatchError, InputMissingError, IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.models.base import Base
from lora_med.models.fingerprint import Fingerprint, folder_with
from lora_med.models.resolve import resolve_base

logger = logging.getLogger(__name__)


def attach_new(
    base: Base,
    lora: LoraSettings,
    *,
    seed: int,
    store: Path | str = STORE,
    rows: Sequence[Sequence[int]] | None = None,
) -> Any:
    """A PeftModel with one new trainable adapter, "default", its weights in float32; `base.model` is changed in place.

    Args:
        seed: of the start; the same seed gives the same adapter, and the random state outside is untouched.
        store: where `lora.continue_from` is looked up.
        rows: token ids of some training rows, for `eva`.

    Raises:
        SettingsError: a name, pattern or combination that cannot be.
        BaseMismatchError: `continue_from` names an adapter of another base.
    """
    from peft import get_peft_model

    refuse_occupied(base)
    method = method_for(base.model, lora)
    check_start(method, base, rows)
    tensors = None
    if lora.continue_from is not None:
        stored, tensors = open_adapter(base, find_adapter(lora.continue_from, store))
        refuse_other_shape(method, stored, lora.continue_from)
    with seeded(seed):
        with _without_peft_noise():
            config = method.peft_config(base.model, inference=False, init=PEFT_NAMES[lora.init_lora_weights])
            model: Any = get_peft_model(base.model, config)
        start_from_base(model, base, method, rows)
    if tensors is not None:
        put_tensors(model, "default", tensors)
    return model


def attach(base: Base, name: str, store: Path | str = STORE, *, onto: Any = None) -> Any:
    """A PeftModel with the published adapter `name` attached for inference: frozen, active, in eval mode.

    Args:
        onto: a PeftModel that `attach` made of the same base, to which this adapter is added.

    Raises:
        InputMissingError: no such adapter.
        BaseMismatchError: it was trained on another base (weights, tokenizer or template differ).
        IntegrityError: a file is not the one that was published, or a tensor does not fit.
    """
    from peft import PeftModel

    check_loadable(name)
    method, tensors = open_adapter(base, find_adapter(name, store))
    config = method.peft_config(base.model if onto is None else onto.get_base_model(), inference=True)
    if onto is None:
        refuse_occupied(base)
        with _without_peft_noise():
            model: Any = PeftModel(base.model, config, adapter_name=name)
    elif onto.get_base_model() is not base.model:
        raise SettingsError("`onto` carries the adapters of another base object", fix="pass the Base it was made from")
    elif name in onto.peft_config:
        raise SettingsError(f"adapter {name!r} is attached already", fix="name each adapter once")
    else:
        model = onto
        model.add_adapter(name, config)
    if tensors.keys() == adapter_parameters(model, name).keys():
        put_tensors(model, name, tensors)
    else:
        _put_by_peft(model, name, tensors)
    model.set_adapter(name, inference_mode=True)
    return model.requires_grad_(False).eval()


def _put_by_peft(model: Any, name: str, tensors: dict[str, Any]) -> None:
    """Let PEFT place what is more than updates of inner layers, and read it back: it drops what it cannot place.

    Whole layers it holds in the base's precision, so they are looked for as rounded to it.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    set_peft_model_state_dict(model, dict(tensors), adapter_name=name)
    found = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    held = {key: found[key].cpu() for key in tensors if key in found}
    lost = sorted(
        key for key, one in tensors.items() if key not in held or not bool((held[key] == one.to(held[key].dtype)).all())
    )
    if lost:
        raise IntegrityError(f"PEFT did not take {len(lost)} of the adapter's tensors, such as {lost[0]!r}")


def detach(model: Any) -> None:
    """Take every adapter off again: `base.model` is then as it was loaded, ready for another `attach`.

    Raises:
        SettingsError: the base itself was moved by PiSSA or OLoRA; load it anew.
    """
    if getattr(model, START, None) is not None:
        raise SettingsError("the base was moved by its adapter's start (PiSSA, OLoRA)", fix="load the base again")
    bare = model.unload()
    if hasattr(bare, "peft_config"):
        del bare.peft_config


@contextmanager
def _without_peft_noise() -> Iterator[None]:
    """Drop the warnings that PEFT raises about its own calls and about defaults that we mean."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*eva.*", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*path_initial_model_for_weight_conversion.*", category=UserWarning)
        yield


def refuse_occupied(base: Base) -> None:
    """Refuse a base whose layers PEFT has wrapped already."""
    if any(name.endswith(".lora_A") for name, _ in base.model.named_modules()):
        raise SettingsError(
            "this base carries adapters already",
            fix="attach(..., onto=model) adds one more, detach(model) takes them off",
        )


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
    if base.quantisation != card.base.quantisation:
        logger.info("%s was trained on a %s base; this one: %s", card.name, card.base.quantisation, base.quantisation)
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
