"""A PEFT folder that llama.cpp's converter reads right: one scale for all layers, and GPT-2's layers turned round.

llama.cpp scales every layer by lora_alpha / (rank of that layer), whatever adapter_config.json says of rsLoRA or of
patterns, and the converter transposes the layers that GPT-2 stores as (in, out) though PEFT's A and B are not stored
so. Neither is told by an error: what differs is therefore put into the numbers here, and proved by llama.cpp's answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_med.adapters.store.store import CONFIG, WEIGHTS
from lora_med.adapters.tensors.method import PREFIX, Method
from lora_med.errors import SettingsError
from lora_med.files import read_json, write_json

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
TURNED = ("gpt2",)  # of the models that the converter takes: those whose layers lie as (in, out)


def write_for_converter(
    tensors: Mapping[str, Any], config: Mapping[str, Any], method: Method, base: Path, target: Path
) -> Path:
    """Write the adapter as llama.cpp's converter takes it into the folder `target`; returns the folder.

    Raises:
        SettingsError: DoRA, which is no sum of a base and an update.
    """
    from safetensors.torch import save_file

    if method.use_dora:
        raise SettingsError(
            "DoRA cannot be exported as an adapter: llama.cpp adds updates, and DoRA rescales the weight itself",
            where=CONFIG,
            fix="export it merged: --part merged",
        )
    turned = read_json(base / "config.json").get("model_type") in TURNED
    found: dict[str, Any] = {}
    for name, down in tensors.items():
        if not name.endswith(DOWN):
            continue
        layer = name.removesuffix(DOWN)
        up = tensors[layer + UP]
        up = up.float() * correction(method, layer.removeprefix(PREFIX))
        down = down.float()
        found[layer + DOWN], found[layer + UP] = (up.T, down.T) if turned else (down, up)
    target.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, target / WEIGHTS)
    plain = {"rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
    write_json(target / CONFIG, {**config, **plain})
    return target


def correction(method: Method, layer: str) -> float:
    """What the update of one layer is multiplied by, so that lora_alpha / rank scales it right."""
    return method.scale(layer) / (method.lora_alpha / method.rank(layer))
