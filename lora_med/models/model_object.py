"""A model object with its tokenizer as a base: compared with the folder of its files, or saved to one first.

An adapter identifies its base by the files, because a merge and every later load read them. So an object is accepted
only if each of its tensors equals the one in its folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.folders import fresh_folder
from lora_med.models.base import Base, Choice, choose_attention, fit_tokenizer
from lora_med.models.files.resolve import resolve_base
from lora_med.models.files.weight_files import read_headers
from lora_med.models.fingerprint import RUNTIME_ONLY, fingerprint
from lora_med.models.tokenizer import load_tokenizer

SAVE = "load_base(model, tokenizer=tokenizer, save_to=FOLDER) writes them there first"


def load_object(
    model: Any,
    tokenizer: Any,
    *,
    save_to: Path | str | None = None,
    dtype: str = "auto",
    attention: str = "auto",
    revision: str | None = None,
) -> Base:
    """A transformers model object with its tokenizer as a Base: as it is, in its number format, frozen in place.

    Its tokenizer must encode as that of its files; the Base gets the latter, with a pad token of its own.

    Raises:
        SettingsError: the object is not a base, or another number format or revision than the object's is requested.
        InputMissingError: the object names no folder with its files, and `save_to` is None.
        IntegrityError: its files hold other weights or another tokenizer.
    """
    check_object(model, tokenizer)
    own_dtype = str(model.dtype).removeprefix("torch.")
    if dtype not in ("auto", own_dtype):
        raise SettingsError(
            f"the model object is in {own_dtype}, not in {dtype}",
            where="load_base(dtype=)",
            fix=f"dtype='auto', or convert it first: model.to(torch.{dtype})",
        )
    if revision is not None:
        raise SettingsError(
            f"a model object has no revision to choose, got {revision!r}",
            where="load_base(revision=)",
            fix="leave revision out, or give the base by name",
        )
    folder = folder_of(model, tokenizer, save_to)
    choices = [Choice("dtype", own_dtype, "the model object has it")]
    attention = choose_attention(attention, model.config, choices)
    model.set_attn_implementation(attention)
    own, tokenizer_choices = load_tokenizer(folder)
    choices += tokenizer_choices + fit_tokenizer(model, own, folder)
    model.requires_grad_(False)
    return Base(
        model=model.eval(),
        tokenizer=own,
        name=str(folder),
        folder=folder,
        revision=getattr(model.config, "_commit_hash", None),
        quantization="none",
        dtype=own_dtype,
        attention=attention,
        choices=tuple(choices),
        fingerprint=fingerprint(folder),
    )


def check_object(model: Any, tokenizer: Any) -> None:
    """Refuse what cannot be a base as an object, before anything is read.

    Raises:
        SettingsError: no tokenizer, adapters on the model, quantized weights, or no transformers model at all.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise SettingsError(
            f"a base cannot be a {type(model).__name__}",
            where="load_base(base)",
            fix="give a name, a folder, or a transformers model with its tokenizer",
        )
    if tokenizer is None:
        raise SettingsError(
            "a model object needs its tokenizer",
            where="load_base(tokenizer=)",
            fix="load_base(model, tokenizer=tokenizer)",
        )
    if getattr(model, "peft_config", None) or any(name.endswith(".lora_A") for name, _ in model.named_modules()):
        raise SettingsError("the model already has adapters", where="load_base(base)", fix="give the bare base")
    if getattr(model, "is_quantized", False):
        raise SettingsError(
            "a model that is quantized in memory cannot be compared with its files",
            where="load_base(base)",
            fix="load_base(FOLDER, quantization='4bit') quantizes the same weights",
        )


def folder_of(model: Any, tokenizer: Any, save_to: Path | str | None) -> Path:
    """The folder with the files of the model and its tokenizer, each compared with what is in memory.

    Args:
        save_to: a folder that does not exist yet; the files are written there first.

    Raises:
        InputMissingError: the model names no folder, and none is given to save it to.
        IntegrityError: the files differ from what is in memory; the message names the first difference.
        OutputError: `save_to` exists.
    """
    if save_to is not None:
        with fresh_folder(Path(save_to)) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        return Path(save_to)
    name = model.name_or_path
    try:
        folder, _ = resolve_base(name, getattr(model.config, "_commit_hash", None)) if name else (None, None)
    except InputMissingError:
        folder = None
    if folder is None:
        raise InputMissingError("the model object names no folder with its files", where="load_base(base)", fix=SAVE)
    _compare_weights(model, folder)
    _compare_tokenizer(tokenizer, load_tokenizer(folder)[0], folder)
    return folder


def _compare_weights(model: Any, folder: Path) -> None:
    """Each tensor of the files must be the model's, up to the model's number format."""
    from safetensors import safe_open

    in_memory = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    in_files = read_headers(folder)
    for name, stored in in_files.items():
        if name not in in_memory:
            raise _differs(f"the files hold {name!r}, and the model in memory does not", folder)
        with safe_open(stored.file, framework="pt") as file:
            tensor = file.get_tensor(name)
        value = in_memory[name].detach().cpu()
        if tensor.shape != value.shape or not bool((tensor.to(value.dtype) == value).all()):
            raise _differs(f"{name!r} in memory is not the one in the files", folder)
    compared = {id(value) for name, value in in_memory.items() if name in in_files}  # tied tensors share one id
    missing = [name for name, value in model.named_parameters(remove_duplicate=False) if id(value) not in compared]
    if missing:
        raise _differs(f"the model in memory has {missing[0]!r}, and the files do not", folder)


def _compare_tokenizer(tokenizer: Any, own: Any, folder: Path) -> None:
    """The tokenizer must encode as that of the files; its pad token does not matter, since lora_med sets its own."""
    if _encoding(tokenizer) != _encoding(own):
        raise _differs("the tokenizer in memory is not the one in the files", folder)
    for role in ("bos_token", "eos_token", "unk_token"):
        if getattr(tokenizer, role, None) != getattr(own, role, None):
            raise _differs(f"the tokenizer's {role} in memory is not the one in the files", folder)
    if (tokenizer.chat_template or "") != (own.chat_template or ""):
        raise _differs("the chat template in memory is not the one in the files", folder)


def _encoding(tokenizer: Any) -> Any:
    """All that decides which ids a text gets."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        return tokenizer.get_vocab()
    content = json.loads(inner.to_str())
    return {key: value for key, value in content.items() if key not in RUNTIME_ONLY}


def _differs(what: str, folder: Path) -> IntegrityError:
    return IntegrityError(what, where=str(folder), fix=f"give the folder alone, or save the object: {SAVE}")
