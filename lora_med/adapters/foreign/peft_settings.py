"""Read the adapter_config.json of an adapter made elsewhere; refuse settings that are dangerous to pass to PEFT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_med.adapters.foreign.mlx_adapter import is_mlx
from lora_med.adapters.foreign.mlx_adapter import peft_settings as mlx_settings
from lora_med.adapters.store.store import CONFIG, WEIGHTS
from lora_med.adapters.tensors.contents import check_method
from lora_med.errors import InputMissingError, IntegrityError
from lora_med.files import read_json, readable

LARGEST_CONFIG_BYTES = 1 << 20
LARGEST_RANK = 4096
LARGEST_ALPHA = 1e6
PATTERN = re.compile(r"(?!(.*\*){3})[\w.\\^$*-]{1,200}")  # layer names, at most two `.*`: more can run for ever
PICKLES = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")


def read_settings(folder: Path) -> dict[str, Any]:
    """An adapter's settings. Settings that would harm PEFT before it checks anything else are refused.

    Raises:
        InputMissingError: the folder holds no adapter that PEFT or mlx-lm saved, or a pickle.
        SettingsError: its method is not supported.
        IntegrityError: a setting is hostile or absurd.
    """
    path = folder / CONFIG
    with readable(path):
        is_there = path.exists()
    if not is_there:
        raise InputMissingError(
            f"no {CONFIG}: the folder holds no adapter that PEFT or mlx-lm saved",
            where=str(folder),
            fix="check the folder",
        )
    if path.stat().st_size > LARGEST_CONFIG_BYTES:
        raise IntegrityError(
            f"{CONFIG} has {path.stat().st_size:,} bytes, more than the limit of {LARGEST_CONFIG_BYTES:,}",
            where=str(path),
            fix="get the adapter again from its author",
        )
    config = read_json(path)
    if is_mlx(config, folder):
        config = mlx_settings(config, folder)
    else:
        _require_weights(folder)
    check_method(config, folder)
    wrong = next(filter(None, (check(config) for check in CHECKS)), None)
    if wrong:
        raise IntegrityError(
            f"the settings cannot be trusted: {wrong}", where=str(path), fix="get the adapter again from its author"
        )
    return config


def _require_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    pickle = next((name for name in PICKLES if (folder / name).is_file()), None)
    raise InputMissingError(
        f"the weights are a pickle ({pickle}), which can run code when opened; required: {WEIGHTS}"
        if pickle
        else f"no {WEIGHTS}",
        where=str(folder),
        fix="if you trust its author, load it with PEFT and save_pretrained(..., safe_serialization=True)",
    )


def _task(config: Mapping[str, Any]) -> str | None:
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        return f"task_type is {str(config['task_type'])[:40]!r}; only CAUSAL_LM is supported"
    return None


def _ranks(config: Mapping[str, Any]) -> str | None:
    patterns = config.get("rank_pattern") or {}
    if not isinstance(patterns, dict):
        return "rank_pattern is not an object"
    for rank in (config.get("r"), *patterns.values()):
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= LARGEST_RANK:
            return f"rank {str(rank)[:40]}, not an integer from 1 to {LARGEST_RANK}"
    return None


def _alphas(config: Mapping[str, Any]) -> str | None:
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        return "alpha_pattern is not an object"
    for alpha in (config.get("lora_alpha"), *patterns.values()):
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= LARGEST_ALPHA:
            return f"lora_alpha {str(alpha)[:40]}, not a positive number up to {LARGEST_ALPHA:g}"
    return None


def _patterns(config: Mapping[str, Any]) -> str | None:
    names = [*(config.get("rank_pattern") or {}), *(config.get("alpha_pattern") or {})]
    strange = next((name for name in names if not (PATTERN.fullmatch(name) and _compiles(name))), None)
    return f"the pattern {strange[:40]!r} is not a layer's name" if strange is not None else None


def _compiles(pattern: str) -> bool:
    try:
        re.compile(rf"(.*\.)?({pattern})$")
    except re.error:
        return False
    return True


def _dropout(config: Mapping[str, Any]) -> str | None:
    dropout = config.get("lora_dropout") or 0
    if not isinstance(dropout, int | float) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
        return f"lora_dropout {str(dropout)[:40]}, not a number from 0 to 1"
    return None


def _lists(config: Mapping[str, Any]) -> str | None:
    for key in ("modules_to_save", "layers_to_transform"):
        value = config.get(key)
        is_one_layer = key == "layers_to_transform" and isinstance(value, int)
        if value is not None and not isinstance(value, list) and not is_one_layer:
            return f"{key} is not a list"
    names = config.get("modules_to_save") or []
    if not all(isinstance(name, str) and PATTERN.fullmatch(name) for name in names):
        return "modules_to_save has an entry that is not a layer's name"
    return None


CHECKS = (_task, _ranks, _alphas, _patterns, _dropout, _lists)
