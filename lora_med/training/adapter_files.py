"""The adapter's weights to a folder and back, strictly: every tensor there, in shape, finite, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from lora_med.errors import IntegrityError

WEIGHTS = "adapter_model.safetensors"


def _trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def trainable_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of all trained tensors, whole and on the CPU. Under FSDP every process must call it."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu().clone()
        for name, value in _trainable(model).items()
    }


def upcast(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Put `weights` back into the trainable parameters as float32: TRL rounds those on a 4-bit base to bfloat16."""
    for name, parameter in _trainable(model).items():
        parameter.data = weights[name].to(parameter.device, torch.float32)


def save_adapter(model: Any, folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write the adapter "default" with `weights` (see `trainable_weights`) and its configuration into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    named = get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False)
    save_file({name: value.contiguous() for name, value in named.items()}, folder / WEIGHTS, {"format": "pt"})
    model.peft_config["default"].save_pretrained(str(folder))


def load_adapter(model: Any, folder: Path) -> None:
    """Copy the tensors saved in `folder` into the adapter "default" of `model`.

    Raises:
        IntegrityError: a tensor is missing, unexpected, of another shape, or not finite.
    """
    saved = load_file(folder / WEIGHTS)
    parameters = _trainable(model)
    # PEFT leaves the adapter's name out of the file; its own naming of our parameters says which is which.
    markers = {name: torch.tensor(number) for number, name in enumerate(parameters)}
    places = get_peft_model_state_dict(model, state_dict=markers, save_embedding_layers=False)
    names = list(parameters)
    wanted = {saved_name: names[int(number)] for saved_name, number in places.items()}
    if wanted.keys() != saved.keys():
        missing, extra = sorted(wanted.keys() - saved.keys()), sorted(saved.keys() - wanted.keys())
        raise IntegrityError(
            f"{len(missing)} tensors are missing and {len(extra)} unexpected, such as {(missing + extra)[0]}",
            where=str(folder),
            fix="the checkpoint is of another adapter: choose another train.output_dir",
        )
    for name, value in saved.items():
        parameter = parameters[wanted[name]]
        if value.shape != parameter.shape or not bool(torch.isfinite(value).all()):
            raise IntegrityError(f"tensor {name} has another shape or holds NaN", where=str(folder))
        with torch.no_grad():
            parameter.copy_(_like(parameter, value))


def _like(parameter: torch.nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    data = parameter.data
    if isinstance(data, DTensor):
        return distribute_tensor(value.to(data.device, data.dtype), data.device_mesh, data.placements)
    return value.to(data.device, data.dtype)
