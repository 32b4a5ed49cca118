"""A PEFT folder that llama.cpp's converter reads correctly: one scale for all layers, GPT-2's layers transposed.

llama.cpp scales every layer by lora_alpha / (rank of that layer). It ignores rsLoRA and the patterns in
adapter_config.json. The converter also transposes the layers that GPT-2 stores as (in, out), although PEFT's A and B
are not stored so. Neither raises an error. So both corrections are applied to the tensors here, and llama.cpp's outputs
prove them.
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
TRANSPOSED = ("gpt2",)  # of the models that the converter supports: those whose layers are stored as (in, out)


def write_for_converter(
    tensors: Mapping[str, Any], config: Mapping[str, Any], method: Method, base: Path, target: Path
) -> Path:
    """Write the adapter into the folder `target`, in the form of llama.cpp's converter; returns the folder.

    Raises:
        SettingsError: the adapter is DoRA, which is not a sum of a base and an update.
    """
    from safetensors.torch import save_file

    if method.use_dora:
        raise SettingsError(
            "DoRA cannot be exported as an adapter: llama.cpp adds updates, and DoRA rescales the weight itself",
            where=CONFIG,
            fix="export it merged: --part merged",
        )
    transposed = read_json(base / "config.json").get("model_type") in TRANSPOSED
    written: dict[str, Any] = {}
    for name, down in tensors.items():
        if not name.endswith(DOWN):
            continue
        layer = name.removesuffix(DOWN)
        up = tensors[layer + UP]
        up = up.float() * correction(method, layer.removeprefix(PREFIX))
        down = down.float()
        written[layer + DOWN], written[layer + UP] = (up.T, down.T) if transposed else (down, up)
    target.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in written.items()}, target / WEIGHTS)
    plain = {"rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
    write_json(target / CONFIG, {**config, **plain})
    return target


def correction(method: Method, layer: str) -> float:
    """The factor of one layer's update with which lora_alpha / rank gives the right scale."""
    return method.scale(layer) / (method.lora_alpha / method.rank(layer))
