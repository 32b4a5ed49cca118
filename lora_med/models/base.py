"""load_base(): a frozen base model, its tokenizer and its identity, every automatic choice with its reason."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.errors import DependencyMissingError, IntegrityError, SettingsError
from lora_med.models.files.resolve import (
    has_sdpa,
    mixes_by_attention_only,
    read_config,
    resolve_base,
    takes_other_attention,
)
from lora_med.models.fingerprint import Fingerprint, fingerprint
from lora_med.models.generation import stop_ids
from lora_med.models.memory import experts_in_full
from lora_med.models.on_disk.weights_source import weights_source
from lora_med.models.precision import DTYPES, Choice, best_dtype, device_kind, log_choices
from lora_med.models.quantize import bitsandbytes_config, is_sharded, refuse_quantization, storage_choice
from lora_med.models.skeleton import skeleton
from lora_med.models.structure.expert_stacks import has_experts
from lora_med.models.tokenizer import choose_pad, load_tokenizer, with_template
from lora_med.models.weight_loading import load_through_cache, load_weights

logger = logging.getLogger(__name__)
__all__ = ["Base", "Choice", "load_base", "resolve_base"]
ATTENTIONS = ("sdpa", "eager", "flash_attention_2", "lora_med_sdpa")
OWN = ATTENTIONS[-1]
STANDARD = "standard"  # SDPA as transformers has it, or eager attention where the class has no SDPA


@dataclass(frozen=True)
class Base:
    """A frozen model in eval mode with its tokenizer; `name` as given, `folder` with its files.

    `labels` are the tags of a token classification head in the order of its outputs, else none. `quantized_now` is true
    if this load quantized the weights to 4 bits, which takes more memory. `chat_template` replaces that of its files.
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
    chat_template: str | None = None

    def with_chat_template(self, text: str | None) -> Base:
        """The base with another chat template, which adapters trained on it carry; None gives it as it is."""
        if text is None:
            return self
        return replace(self, tokenizer=with_template(self.tokenizer, text), chat_template=text)


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
        attention: one of ATTENTIONS; "auto" keeps packed documents separate where it can; STANDARD needs no such rows.
        revision: the Hub commit, tag or branch.
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
                "a model object is not quantized in memory", where="load_base(quantization=)", fix="give its folder"
            )
        return load_object(base, tokenizer, save_to=save_to, dtype=dtype, attention=attention, revision=revision)
    if tokenizer is not None or save_to is not None:
        raise SettingsError(
            "a base that is named has its own tokenizer",
            where="load_base(tokenizer=, save_to=)",
            fix="leave both out, or give a model object",
        )
    return _load_named(
        str(base),
        quantization=quantization,
        quant_type=quant_type,
        double_quant=double_quant,
        dtype=dtype,
        attention=attention,
        revision=revision,
        keep_quantized=keep_quantized,
    )


def _load_named(
    base: str,
    *,
    quantization: str,
    quant_type: str,
    double_quant: bool,
    dtype: str,
    attention: str,
    revision: str | None,
    keep_quantized: bool,
) -> Base:
    """What `load_base` returns, for a folder, a Hub id or `micro`."""
    choices: list[Choice] = []
    dtype = choose_dtype(dtype, choices)
    folder, commit = resolve_base(base, revision)
    config = read_config(folder)
    attention = choose_attention(attention, config, choices)
    refuse_quantization(quantization, config)
    quantized = bitsandbytes_config(quantization, quant_type=quant_type, double_quant=double_quant, dtype=dtype)
    if quantization != "none" and has_experts(config):
        kept = experts_in_full(skeleton(folder), quantization=quantization, double_quant=double_quant, dtype=dtype)
        if kept is not None:
            logger.warning("%s", kept)
    choices += [storage_choice(dtype)] if quantization == "4bit" and is_sharded() else []
    tokenizer, tokenizer_choices = load_tokenizer(folder)
    source = weights_source(folder, config, quantization=quantization, double_quant=double_quant, dtype=dtype)
    if source.is_quantized:
        model, was_cached = load_weights(folder, source.config, None, dtype, attention), True
    elif quantization == "4bit" and keep_quantized and not is_sharded():
        model, was_cached = load_through_cache(source.folder, source.config, quantized, dtype, attention)
    else:
        model, was_cached = load_weights(source.folder, source.config, quantized, dtype, attention), False
    model.name_or_path = model.config._name_or_path = str(folder)
    choices += [*source.choices, *tokenizer_choices, *fit_tokenizer(model, tokenizer, folder)]
    log_choices(choices)
    return Base(
        model=model,
        tokenizer=tokenizer,
        name=base,
        folder=folder,
        revision=commit,
        quantization=source.quantization,
        dtype=dtype,
        attention=attention,
        choices=tuple(choices),
        fingerprint=fingerprint(folder),
        double_quant=source.double_quant,
        quantized_now=source.quantization == "4bit" and not was_cached,
    )


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
    standard = "sdpa" if able else "eager"
    if attention == STANDARD:
        return standard
    if attention == "auto":
        if not mixes_by_attention_only(config):
            reason = "layers besides attention carry one document into the next; rows are padded"
        elif able and takes_other_attention(config):
            standard, reason = own, "it separates packed documents at linear cost"
        elif able:
            reason = "this model takes no attention but its own; rows are padded"
        else:
            reason = "this model has no SDPA; rows are padded"
        choices.append(Choice("attention", standard, reason))
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
    if attention == OWN and able and not takes_other_attention(config):
        raise SettingsError(
            f"model type {config.model_type!r} takes no attention but its own",
            where="model.attn_implementation",
            fix="model.attn_implementation=sdpa, and train.packing=false",
        )
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
