"""An adapter that mlx-lm saved, as the two files of PEFT: its matrices transposed, its scale as an alpha.

mlx-lm writes `adapters.safetensors`, where a layer has `lora_a` (inputs, r), `lora_b` (r, outputs) and for DoRA the
magnitude `m`. Its `adapter_config.json` holds the arguments of the training. The update of a layer is
`scale * lora_b.T @ lora_a.T`; the scale is `lora_parameters.scale` itself and is not divided by the rank.
Source: mlx_lm/tuner/lora.py and dora.py of mlx-lm 0.31.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_med.adapters.store.store import CONFIG, WEIGHTS
from lora_med.adapters.tensors.method import PREFIX
from lora_med.errors import IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.models.files.weight_files import FLOATS, Stored, open_stored, read_header, read_rows

MLX_WEIGHTS = "adapters.safetensors"
KINDS = {"lora": False, "dora": True}  # fine_tune_type, and whether it is DoRA
PARTS = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}


def is_mlx(config: Any, folder: Path) -> bool:
    """Whether the settings and files of an adapter are mlx-lm's."""
    return isinstance(config, dict) and "lora_parameters" in config and (folder / MLX_WEIGHTS).is_file()


def peft_settings(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """mlx-lm's settings as those of PEFT.

    Raises:
        SettingsError: the adapter is not LoRA or DoRA, or its scale is not known.
        IntegrityError: a setting is absent or has an impossible value.
    """
    where = str(folder / CONFIG)
    kind = config.get("fine_tune_type", "lora")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SettingsError(
            f"mlx-lm trained it as {str(kind)[:40]!r}, not as LoRA or DoRA",
            where=where,
            fix="train it with fine_tune_type: lora",
        )
    values = config["lora_parameters"]
    if not isinstance(values, dict):
        raise IntegrityError("lora_parameters is not an object", where=where, fix="get the adapter again")
    if "alpha" in values:
        raise SettingsError(
            "lora_parameters has an alpha, which some versions of mlx-lm multiply with the scale and others ignore",
            where=where,
            fix="remove alpha, and set lora_parameters.scale to the number that multiplied the update in the training",
        )
    rank, scale = values.get("rank"), values.get("scale")
    if type(rank) is not int or isinstance(scale, bool) or not isinstance(scale, int | float):
        raise IntegrityError(
            f"lora_parameters has rank {str(rank)[:40]} and scale {str(scale)[:40]}, not two numbers",
            where=where,
            fix="copy the numbers from the training's settings",
        )
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": values.get("dropout") or 0.0,
        "use_dora": KINDS[kind],
        "base_model_name_or_path": config.get("model"),
    }


def peft_files(settings: Mapping[str, Any], folder: Path) -> dict[str, bytes] | None:
    """The bytes of PEFT's two files for an adapter of mlx-lm, by file name; None for any other adapter.

    Args:
        settings: those of `peft_settings`.

    Raises:
        IntegrityError: a tensor is not part of an update of a matrix.
    """
    if not is_mlx(read_json(folder / CONFIG), folder):
        return None
    from safetensors.torch import save

    tensors: dict[str, Any] = {}
    for name, stored in read_header(folder / MLX_WEIGHTS).items():
        layer, _, part = name.rpartition(".")
        shape = 1 if part == "m" else 2
        if not layer or part not in PARTS or stored.dtype not in FLOATS or len(stored.shape) != shape:
            raise IntegrityError(
                f"tensor {name[:200]!r} {stored.shape} ({stored.dtype}) is not part of an update of a matrix",
                where=str(folder / MLX_WEIGHTS),
                fix="fused experts and embeddings of mlx-lm are not read: train the other layers only",
            )
        numbers = _read(stored)
        tensors[f"{PREFIX}{layer}.{PARTS[part]}"] = (numbers if part == "m" else numbers.T).contiguous()
    return {CONFIG: json.dumps(settings).encode(), WEIGHTS: save(tensors)}


def _read(stored: Stored) -> Any:
    with open_stored(stored) as handle:
        return read_rows(handle, stored)
