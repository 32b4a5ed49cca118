"""The tensors of an adapter: copied from a model, checked, and loaded into one, under the names of PEFT's file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_med.adapters.tensors.method import PREFIX
from lora_med.errors import IntegrityError

PARTS = ("lora_A", "lora_B")
MAGNITUDE = "lora_magnitude_vector"
TOKEN_ROWS = "token_adapter.trainable_tokens_delta"
logger = logging.getLogger(__name__)


def lora_layers(model: Any) -> dict[str, Any]:
    """Layer name (without PEFT's prefix) -> PEFT's LoRA layer, in the model's order."""
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix(PREFIX): module for name, module in model.named_modules() if isinstance(module, LoraLayer)
    }


def adapter_parameters(model: Any, adapter: str) -> dict[str, tuple[str, Any]]:
    """Tensor name in the file -> (name in the model's state, parameter): updates, trained tokens, layers in full."""
    from peft.utils import ModulesToSaveWrapper
    from peft.utils.other import TrainableTokensWrapper

    parameters = {}
    for layer, module in lora_layers(model).items():
        for part in PARTS:
            if adapter in getattr(module, part):
                key = f"{PREFIX}{layer}.{part}.{adapter}.weight"
                parameters[f"{PREFIX}{layer}.{part}.weight"] = (key, getattr(module, part)[adapter].weight)
        if adapter in module.lora_magnitude_vector:
            key = f"{PREFIX}{layer}.{MAGNITUDE}.{adapter}.weight"
            parameters[f"{PREFIX}{layer}.{MAGNITUDE}"] = (key, module.lora_magnitude_vector[adapter].weight)
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and adapter in module.modules_to_save:
            for key, parameter in module.modules_to_save[adapter].named_parameters():
                parameters[f"{name}.{key}"] = (f"{name}.modules_to_save.{adapter}.{key}", parameter)
        if isinstance(module, TrainableTokensWrapper) and not module.token_adapter.tied_adapter:
            rows = module.token_adapter.trainable_tokens_delta
            if adapter in rows:  # a tied head has the rows of the embedding
                parameters[f"{name}.{TOKEN_ROWS}"] = (f"{name}.{TOKEN_ROWS}.{adapter}", rows[adapter])
    return parameters


def take_tensors(model: Any, adapter: str = "default", state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Copies of an adapter's tensors on the CPU, under the names of PEFT's file.

    Args:
        state: a gathered state dict, where the model's own parameters are shards (FSDP, ZeRO-3).
    """
    copies = {}
    for name, (key, parameter) in adapter_parameters(model, adapter).items():
        if state is not None and key not in state:
            raise IntegrityError(f"the gathered state lacks {key!r}", fix="gather the whole adapter on rank 0")
        source = parameter if state is None else state[key]
        copies[name] = source.detach().to("cpu").clone().contiguous()
    return copies


def put_tensors(model: Any, adapter: str, tensors: Mapping[str, Any]) -> None:
    """Copy `tensors` into the adapter's parameters; `check_tensors` has checked their names and shapes."""
    import torch

    with torch.no_grad():
        for name, (_, parameter) in adapter_parameters(model, adapter).items():
            parameter.copy_(tensors[name])


def check_tensors(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Any], where: str | Path) -> None:
    """Refuse tensors that are missing, unexpected, misshaped or not finite; warn if the adapter has no effect.

    Raises:
        IntegrityError: it gives the count and the first name of each kind.
    """
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    shared = sorted(expected.keys() & tensors.keys())
    misshaped = [
        f"{name} is {tuple(tensors[name].shape)}, wanted {expected[name]}"
        for name in shared
        if tuple(tensors[name].shape) != tuple(expected[name])
    ]
    broken = [name for name in shared if not _is_finite(tensors[name])]
    kinds = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": misshaped,
        "with NaN or infinity, or not floating-point": broken,
    }
    wrong = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds.items() if names]
    if wrong:
        raise IntegrityError(
            f"the adapter's tensors do not fit: {'; '.join(wrong)}", where=str(where), fix="train it again, or copy it"
        )
    updates = [tensors[name] for name in shared if ".lora_B." in name]
    if updates and not any(bool(tensor.any()) for tensor in updates):
        logger.warning("the adapter in %s changes nothing: every lora_B is zero", Path(where).name)


def _is_finite(tensor: Any) -> bool:
    import torch

    return tensor.is_floating_point() and bool(torch.isfinite(tensor.float()).all())  # the adapter runs in float32
