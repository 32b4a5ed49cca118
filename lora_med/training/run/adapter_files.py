"""The adapter's weights to a checkpoint and back, strictly: every tensor present, of its shape, finite, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from lora_med.adapters.store.store import WEIGHTS
from lora_med.adapters.tensors.weights import adapter_parameters, check_tensors, take_tensors


def _trainable(model: Any) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def trainable_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of all trained tensors, complete and on the CPU. Under FSDP every process must call it."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu().clone()
        for name, value in _trainable(model).items()
    }


def restore(model: Any, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Restore the trainable parameters as `dtype`: TRL rounds those on a 4-bit base to bfloat16."""
    for name, parameter in _trainable(model).items():
        parameter.data = weights[name].to(parameter.device, dtype)


def saved_weights(model: Any, content: bytes) -> dict[str, torch.Tensor]:
    """The weights in `content`, the bytes of an adapter's file, under the names of `trainable_weights`."""
    saved = load(content)
    return {key: saved[name] for name, (key, _) in adapter_parameters(model, "default").items()}


def save_adapter(model: Any, folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write the adapter "default" with `weights` (see `trainable_weights`) and its configuration into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(take_tensors(model, state=weights), folder / WEIGHTS, {"format": "pt"})
    model.peft_config["default"].save_pretrained(str(folder))


def load_adapter(model: Any, folder: Path, content: bytes | None = None) -> None:
    """Copy the tensors saved in `folder` into the adapter "default" of `model`.

    Args:
        content: the bytes of the adapter's file there, where this process may not see the folder.

    Raises:
        IntegrityError: a tensor is missing, unexpected, of another shape, or not finite.
    """
    saved = load_file(folder / WEIGHTS) if content is None else load(content)
    parameters = {name: parameter for name, (_, parameter) in adapter_parameters(model, "default").items()}
    check_tensors({name: tuple(parameter.shape) for name, parameter in parameters.items()}, saved, folder)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(_like(parameter.data, saved[name]))


def _like(data: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    value = value.to(data.device, data.dtype)
    return distribute_tensor(value, data.device_mesh, data.placements) if isinstance(data, DTensor) else value
