"""Sizes and settings in a base's JSON files, compared with its weights before anything is built from them.

A configuration is a few numbers that decide how much memory a model takes and how many modules it has. A hostile or
damaged one asks for a billion layers beside weights of two. Here only JSON and the headers of the weights are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_med.errors import InputMissingError, IntegrityError
from lora_med.files import read_json
from lora_med.models.building import BUILDING
from lora_med.models.files.weight_files import read_headers

LARGEST_BYTES = 10_000_000  # of a JSON file of settings
FEW_LAYERS = 200  # that many are built in no time, whatever the weights hold
SMALL_SIZE = 20_000  # defaults that a small model leaves unused, such as the size of its experts
LARGEST_NUMBER = 2**31
MOST_ELEMENTS_A_BYTE = 4
SMALL_MODEL = 50_000_000  # elements
LAYERS = re.compile(r"(num_)?((hidden|encoder|decoder)_)?layers|n_layers?|depth")
POSITIONS = re.compile(r"position|length|window|token|ctx|context|seq|theta|chunk|seed|max_|_id$|group_size|version")
COPY = "copy or download the model again"


def check_sizes(folder: Path) -> None:
    """Refuse a config.json that describes a far larger model than the weights beside it, in little time and memory.

    Raises:
        IntegrityError: it names the setting, its value, and what the weights hold.
    """
    path = folder / "config.json"
    settings = read_settings_file(path)
    try:
        headers = read_headers(folder)
    except InputMissingError:
        headers = {}
    largest = max((size for stored in headers.values() for size in stored.shape), default=0)
    suspicious = False
    for key, value in _integers(settings):
        where = f"{path}: {key}"
        name = key.rpartition(".")[2]
        if abs(value) >= LARGEST_NUMBER:
            raise IntegrityError(f"{name} is {str(value)[:40]}, which no model has", where=where, fix=COPY)
        if LAYERS.fullmatch(name) and value > max(FEW_LAYERS, len(headers)):
            held = f"the weights are {len(headers):,} tensors"
            raise IntegrityError(f"{name} is {value:,}, but {held}", where=where, fix=COPY)
        if value > max(SMALL_SIZE, largest, len(headers)) and not POSITIONS.search(name):
            held = f"the largest size of a tensor in the weights is {largest:,}"
            raise IntegrityError(f"{name} is {value:,}, but {held}", where=where, fix=COPY)
        suspicious = suspicious or value > largest
    if suspicious and headers:
        _check_elements(folder, sum(stored.size for stored in headers.values()))


def read_settings_file(path: Path) -> dict[str, Any]:
    """The JSON object in a base's file of settings.

    Raises:
        InputMissingError, IntegrityError: as `read_json`; or it is too large, or not an object.
    """
    if path.is_file() and path.stat().st_size > LARGEST_BYTES:
        raise IntegrityError(f"{path.name} has {path.stat().st_size:,} bytes", where=str(path), fix=COPY)
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise IntegrityError(f"{path.name} is not a JSON object", where=str(path), fix=COPY)
    return settings


def _integers(settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every integer in the settings, with its key; those of a list have the key of the list."""
    waiting: list[tuple[str, Any]] = [(str(key), value) for key, value in settings.items() if "token" not in str(key)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{key}.{inner}", item) for inner, item in value.items()]
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]
        elif isinstance(value, float) and value.is_integer() and math.isfinite(value):
            yield key, 0 if POSITIONS.search(key) else int(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield key, value


def _check_elements(folder: Path, stored_bytes: int) -> None:
    """Refuse a model whose weights would take many times the bytes on disk; it is built without memory for them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        with BUILDING, torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            several = type(config) in AutoModelForImageTextToText._model_mapping
            kind: Any = AutoModelForImageTextToText if several else AutoModelForCausalLM
            model = kind.from_config(config, trust_remote_code=False)
    except Exception:  # other checks name what is wrong with it, and it may be a model of another kind
        return
    elements = sum(parameter.numel() for parameter in model.parameters())
    if elements > max(SMALL_MODEL, MOST_ELEMENTS_A_BYTE * stored_bytes):
        raise IntegrityError(
            f"config.json describes {elements:,} weights, but the files hold {stored_bytes:,} bytes",
            where=str(folder / "config.json"),
            fix=COPY,
        )
