"""load_base(): a frozen base model, its tokenizer and its identity, every automatic choice with its reason."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.errors import DependencyMissingError, IntegrityError, SettingsError
from lora_med.models.files.quantized_cache import cache_path, is_cached, save_to_cache
from lora_med.models.files.resolve import has_sdpa, read_config, resolve_base
from lora_med.models.fingerprint import Fingerprint, fingerprint
from lora_med.models.generation import stop_ids
from lora_med.models.precision import DTYPES, Choice, best_dtype, device_kind
from lora_med.models.quantize import bitsandbytes_config, is_sharded, keep_gradients_exact, storage_choice
from lora_med.models.tokenizer import choose_pad, load_tokenizer

__all__ = ["Base", "Choice", "load_base", "resolve_base"]
ATTENTIONS = ("sdpa", "eager", "flash_attention_2", "lora_med_sdpa")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Base:
    """A frozen model in eval mode with its tokenizer; `name` as given, `folder` with its files.

    `labels` are the tags of a token classification head, in the order of its outputs; a language model has none.
    `quantized_now` is true if this load quantized the weights to 4 bits, which takes more memory.
    """

    model: Any
    tokenizer: Any
    name: str
    folder: Path
    revision: str | None
    quantization: str
    dtype: str
    attention: str
    choices: tuple[Choice, ...]
    fingerprint: Fingerprint
    labels: tuple[str, ...] = ()
    double_quant: bool = True
    quantized_now: bool = False


def load_base(
    base: Any = "micro",
    *,
    tokenizer: Any = None,
    save_to: Path | str | None = None,
    quantization: str = "4bit",
    quant_type: str = "nf4",
    double_quant: bool = True,
    dtype: str = "auto",
    attention: str = "auto",
    revision: str | None = None,
    keep_quantized: bool = True,
) -> Base:
    """Load a base for training adapters on it or running them: frozen, from safetensors, without any code of its own.

    Args:
        base: `micro`, a local folder, a Hub id, or a model object with its `tokenizer` (see `load_object`).
        save_to: for a model object without files, a new folder to which they are written first.
        quantization: "none", "8bit" or "4bit"; for 4bit, `quant_type` is "nf4" or "fp4", and `double_quant` quantizes
            the quantization constants too.
        dtype: "auto", or one of float32, bfloat16, float16, for all that is not quantized.
        attention, revision: one of ATTENTIONS or "auto"; the Hub commit, tag or branch.
        keep_quantized: cache the 4-bit weights of a larger base in the user's cache folder.

    Raises:
        InputMissingError: no such base, or no safetensors.
        SettingsError: an unknown choice, or a kind of model that cannot be used.
        IntegrityError: files are truncated, or weights are absent.
    """
    if not isinstance(base, str | Path):
        from lora_med.models.model_object import load_object  # it builds on this module

        if quantization == "8bit":
            raise SettingsError(
                "a model object is not quantized here", where="load_base(quantization=)", fix="give its folder"
            )
        return load_object(base, tokenizer, save_to=save_to, dtype=dtype, attention=attention, revision=revision)
    if tokenizer is not None or save_to is not None:
        raise SettingsError("a base given by name brings its own tokenizer", where="load_base(tokenizer=, save_to=)")
    base = str(base)
    choices: list[Choice] = []
    dtype = choose_dtype(dtype, choices)
    folder, commit = resolve_base(base, revision)
    config = read_config(folder)
    attention = choose_attention(attention, config, choices)
    quantized = bitsandbytes_config(quantization, quant_type=quant_type, double_quant=double_quant, dtype=dtype)
    choices += [storage_choice(dtype)] if quantization == "4bit" and is_sharded() else []
    tokenizer, tokenizer_choices = load_tokenizer(folder)
    cached = quantization == "4bit" and keep_quantized and not is_sharded()
    model, was_cached = (_load_cached if cached else _load_fresh)(folder, config, quantized, dtype, attention)
    choices += tokenizer_choices + fit_tokenizer(model, tokenizer, folder)
    _report(choices)
    now, identity = quantization == "4bit" and not was_cached, fingerprint(folder)
    kinds = (quantization, dtype, attention)
    return Base(model, tokenizer, base, folder, commit, *kinds, tuple(choices), identity, (), double_quant, now)


def _report(choices: Sequence[Choice]) -> None:
    for choice in choices:
        logger.info("%s", choice)


def choose_dtype(dtype: str, choices: list[Choice]) -> str:
    """`dtype`, or for "auto" the best one for the device, which is then added to `choices`."""
    if dtype == "auto":
        choices.append(best_dtype(device_kind()))
        return choices[-1].value
    if dtype not in DTYPES:
        raise SettingsError(unknown("dtype", dtype, ("auto", *DTYPES)), where="model.dtype")
    return dtype


def choose_attention(attention: str, config: Any, choices: list[Choice]) -> str:
    """`attention`, or for "auto" the best one for this configuration, which is then added to `choices`."""
    from lora_med.models.attention.per_document import register_attention  # it loads torch

    own = register_attention()
    able = has_sdpa(config)
    if attention == "auto":
        reason = "it separates packed documents at linear cost" if able else "this model has no SDPA; rows are padded"
        choices.append(Choice("attention", own if able else "eager", reason))
        return choices[-1].value
    check_attention(attention, config, able=able)
    return attention


def check_attention(attention: str, config: Any, *, able: bool, known: Sequence[str] = ATTENTIONS) -> None:
    """Refuse an attention that is unknown, that the model does not support, or that is not installed.

    Args:
        able: whether the model has SDPA.
    """
    if attention not in known:
        raise SettingsError(unknown("attention", attention, ("auto", *known)), where="model.attn_implementation")
    if "sdpa" in attention and not able:
        raise SettingsError(
            f"model type {config.model_type!r} has no SDPA",
            where="model.attn_implementation",
            fix="model.attn_implementation=eager, and train.packing=false",
        )
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise DependencyMissingError(
            "flash_attention_2 needs the package flash-attn, which is not installed",
            where="model.attn_implementation",
            fix="pip install flash-attn, or leave attn_implementation at auto",
        )


def _load_fresh(folder: Path, config: Any, quantized: Any, dtype: str, attention: str) -> tuple[Any, bool]:
    return load_weights(folder, config, quantized, dtype, attention), False


def _load_cached(folder: Path, config: Any, quantized: Any, dtype: str, attention: str) -> tuple[Any, bool]:
    """The 4-bit model, and whether it came from the cache; if not, it is quantized now and cached."""
    where, facts = cache_path(folder, quantized, dtype=dtype, device=device_kind())
    if is_cached(where, facts):
        with _without_garbage_collection():
            model = load_weights(where, read_config(where), None, dtype, attention)
        model.name_or_path = model.config._name_or_path = str(folder)
        return model, True
    model = load_weights(folder, config, quantized, dtype, attention)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with progress_on_terminals_only():
            save_to_cache(model, where, facts)
    return model, False


def load_weights(
    folder: Path, config: Any, quantized: Any, dtype: str, attention: str, *, head: Sequence[str] = ()
) -> Any:
    """The frozen model in eval mode; with `head`, a token classifier, whose head of these names is untrained.

    Raises:
        IntegrityError: files are truncated, or weights are absent.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    kind: Any = AutoModelForTokenClassification if head else AutoModelForCausalLM
    device_map = {"": int(os.environ.get("LOCAL_RANK", "0"))} if device_kind() == "cuda" and not is_sharded() else None
    try:
        with progress_on_terminals_only(), _without_report() if head else nullcontext():
            loaded: Any = kind.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                quantization_config=quantized,
                device_map=device_map,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=bool(head),  # a head of other tags; any other mismatch is refused below
            )
    except (RuntimeError, OSError, KeyError) as error:
        raise IntegrityError(
            f"the weights do not fit config.json, or cannot be read ({type(error).__name__})",
            where=str(folder),
            fix="copy or download the model again",
        ) from error
    model, loading = loaded
    _check_loading(loading, folder, tuple(f"{name}." for name in head))
    keep_gradients_exact(model)
    model.requires_grad_(False)
    return model.eval()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector: transformers copies its loading plan for each tensor, and a pass walks all copies.

    Do not use it for a load that quantizes: the garbage is then large.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def progress_on_terminals_only() -> Iterator[None]:
    """Keep transformers' loading bar out of log files."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers' table of the new head's missing weights out of the log; `_check_loading` checks them."""
    noisy = logging.getLogger("transformers.modeling_utils")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        yield
    finally:
        noisy.setLevel(before)


def _check_loading(loading: Any, folder: Path, head: tuple[str, ...]) -> None:
    """Transformers fills absent weights with random numbers and only warns; such a base is wrong without notice."""
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith(head))
    misfit = sorted(str(entry) for entry in loading["mismatched_keys"] if not str(entry[0]).startswith(head))
    if missing or misfit:
        raise IntegrityError(
            f"{len(missing)} weights are absent and {len(misfit)} have another shape, such as {(missing + misfit)[0]}",
            where=str(folder),
            fix="copy or download the model again",
        )
    if loading["unexpected_keys"] and not head:  # a classifier leaves out the head that predicts words
        names = sorted(loading["unexpected_keys"])
        logger.warning("%d weights in %s have no place in the model, such as %s", len(names), folder.name, names[0])


def fit_tokenizer(model: Any, tokenizer: Any, folder: Path) -> list[Choice]:
    """Refuse a vocabulary larger than the embedding, and settle the pad token; returns the choices made."""
    rows = model.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise IntegrityError(
            f"the tokenizer has ids up to {largest}, the embedding {rows} rows: they are not of one model",
            where=str(folder),
            fix="copy the tokenizer that belongs to these weights",
        )
    choice = choose_pad(tokenizer, set(stop_ids(model, tokenizer)), rows)
    tokenizer.padding_side = "right"
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return [choice] if choice else []
