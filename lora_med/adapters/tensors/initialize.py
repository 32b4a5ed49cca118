"""Initialize an adapter: at zero, or from the base's weights or activations; and convert it back to a plain LoRA.

PiSSA and OLoRA move part of the base's weights into the adapter and use the rest as the base. Nobody else has that
changed base. So the adapter is published as its difference from the start, [B | -B0] [A ; A0]. That is a plain LoRA of
twice the rank on the original base (PEFT's own conversion, without its second folder).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_med.adapters.tensors.method import Method
from lora_med.adapters.tensors.weights import lora_layers, take_tensors
from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.base import Base
from lora_med.models.files.weight_files import Stored, read_headers
from lora_med.models.on_disk.weights_source import takes_as_stored

PEFT_NAMES: dict[str, bool | str] = {
    "default": True,
    "gaussian": "gaussian",
    "pissa": "pissa",
    "olora": "olora",
    "loftq": True,
    "eva": "eva",
}
MOVES_BASE = ("pissa", "olora")
IN_FULL = "model.load_in_4bit=false model.load_in_8bit=false"
START = "lora_med_start"  # attribute of the PeftModel: the initial tensors, if the base was changed
METHOD = "lora_med_method"  # attribute of the PeftModel: its Method


def check_dora(method: Method, base: Base) -> None:
    """Refuse DoRA on an 8-bit base: there PEFT ignores the quantization scales when it computes weight norms.

    Raises:
        SettingsError: it names the combination.
    """
    if method.use_dora and base.quantization == "8bit":
        on_disk = takes_as_stored(base.folder, base.quantization)
        raise SettingsError(
            f"DoRA with an 8-bit base{' (it is quantized so on disk)' if on_disk else ''} does not run in PEFT",
            where="lora.use_dora",
            fix=IN_FULL if on_disk else "model.load_in_8bit=false model.load_in_4bit=true",
        )


def check_start(method: Method, base: Base, rows: Sequence[Sequence[int]] | None) -> None:
    """Refuse an initialization that is impossible on this base, before anything is changed.

    Raises:
        SettingsError: it names the combination and an alternative.
    """
    check_dora(method, base)
    where, init = "lora.init_lora_weights", method.init
    transposed = any(layer.transposed for layer in method.targets(base.model))
    on_disk = init in (*MOVES_BASE, "loftq") and takes_as_stored(base.folder, base.quantization)
    if init in MOVES_BASE and base.quantization != "none":
        raise SettingsError(
            f"{init} with a {base.quantization} base: the rest of the base would be quantized again, "
            "and the adapter would fit no base that others have",
            where=where,
            fix=IN_FULL if on_disk else f"{IN_FULL}, or init_lora_weights: loftq",
        )
    if init == "olora" and transposed:
        raise SettingsError(
            "olora with GPT-2's transposed layers: PEFT confuses their inputs and outputs", where=where, fix="use pissa"
        )
    if init == "loftq" and on_disk:
        raise SettingsError(
            "loftq with a base that is 4-bit on disk: these values are the base, so there is no error to correct",
            where=where,
            fix="init_lora_weights: default",
        )
    if init == "loftq" and base.quantization != "4bit":
        raise SettingsError(
            f"loftq with a base that is not 4-bit (quantization: {base.quantization}): there is no error to correct",
            where=where,
            fix="model.load_in_4bit=true, or init_lora_weights: default",
        )
    if init == "eva" and not rows:
        raise SettingsError(
            "eva starts from the training data's activations, but `rows` is empty", where=where, fix="pass rows="
        )


@contextmanager
def seeded(seed: int) -> Any:
    """Use `seed` for random numbers inside the block; the random state outside is unchanged."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def start_from_base(model: Any, base: Base, method: Method, rows: Sequence[Sequence[int]] | None) -> None:
    """Apply what PEFT's constructor does not: LoftQ and EVA. For PiSSA and OLoRA, record the initial tensors."""
    setattr(model, METHOD, method)
    if method.init in MOVES_BASE:
        setattr(model, START, take_tensors(model))
    elif method.init == "loftq":
        from lora_med.models.on_disk.dequantized_base import values_folder  # it loads torch

        _loftq(model, values_folder(base.folder), method)
    elif method.init == "eva":
        _eva(model, base, rows or [])


def _loftq(model: Any, folder: Path, method: Method) -> None:
    """Start at the best rank-r approximation of the 4-bit error (LoftQ, Li et al. 2023, one step, Q as loaded).

    The quantized base does not change, so the adapter's base is the one that everybody loads.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit

    stored = read_headers(folder)
    prefix = f"{model.get_base_model().base_model_prefix}."
    for layer, module in lora_layers(model).items():
        weight = module.get_base_layer().weight
        if not hasattr(weight, "quant_state"):
            continue
        name = f"{layer}.weight"
        entry = stored.get(name) or stored.get(name.removeprefix(prefix))
        if entry is None:
            raise IntegrityError(f"the base's files hold no tensor {name!r}", where=str(folder))
        original = _read(entry).to(weight.device, torch.float32)
        quantized = dequantize_4bit(weight.data, weight.quant_state).to(torch.float32)
        if _stored_transposed(module):
            original = original.T
        left, values, right = torch.linalg.svd((original - quantized) / method.scale(layer), full_matrices=False)
        rank, root = method.rank(layer), values.sqrt()
        with torch.no_grad():
            module.lora_A["default"].weight.copy_(root[:rank, None] * right[:rank])
            module.lora_B["default"].weight.copy_(left[:, :rank] * root[:rank])


def _stored_transposed(module: Any) -> bool:
    """Whether the file stores the layer's weight transposed (GPT-2's Conv1D); transformers records it on quantizing."""
    return getattr(module.get_base_layer(), "source_cls", type(None)).__name__ == "Conv1D"


def _read(stored: Stored) -> Any:
    from safetensors import safe_open

    with safe_open(stored.file, framework="pt") as handle:
        return handle.get_tensor(stored.name)


def _eva(model: Any, base: Base, rows: Sequence[Sequence[int]]) -> None:
    import torch
    from peft import initialize_lora_eva_weights

    pad, device = base.tokenizer.pad_token_id, base.model.device
    width = max(len(row) for row in rows)
    batches = []
    for start in range(0, len(rows), 4):
        some = rows[start : start + 4]
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in some], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in some], device=device)
        batches.append({"input_ids": ids, "attention_mask": mask})
    initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    for parameter in model.parameters():  # EVA computes them from activations, in the base's precision
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def trained_state(model: Any, adapter: str, state: Mapping[str, Any] | None = None) -> tuple[Method, dict[str, Any]]:
    """The trained adapter as a plain LoRA on the original base: its method, and its tensors on the CPU.

    Raises:
        SettingsError: `attach_new` did not create the model.
    """
    method: Method | None = getattr(model, METHOD, None)
    if method is None:
        raise SettingsError(
            "attach_new did not create this model", fix="pass the PeftModel that attach_new returned, unwrapped"
        )
    tensors = take_tensors(model, adapter, state)
    start = getattr(model, START, None)
    if start is not None:
        return _doubled(method), {name: _difference(name, tensor, start[name]) for name, tensor in tensors.items()}
    if method.init == "eva":
        return _redistributed(method, model, adapter), tensors
    return method, tensors


def _difference(name: str, trained: Any, began: Any) -> Any:
    import torch

    if ".lora_A." in name:
        return torch.cat([trained, began], dim=0)
    return torch.cat([trained, -began], dim=1) if ".lora_B." in name else trained


def _doubled(method: Method) -> Method:
    """Twice the rank at the same scale."""
    factor = math.sqrt(2) if method.use_rslora else 2
    return replace(
        method,
        r=2 * method.r,
        lora_alpha=factor * method.lora_alpha,
        rank_pattern={key: 2 * rank for key, rank in method.rank_pattern.items()},
        alpha_pattern={key: factor * alpha for key, alpha in method.alpha_pattern.items()},
    )


def _redistributed(method: Method, model: Any, adapter: str) -> Method:
    """EVA gives more rank to the layers that explain more variance; PEFT holds the result in its configuration."""
    config = model.peft_config[adapter]
    names = config.target_modules
    return replace(
        method,
        target_modules=tuple(sorted(names)),
        rank_pattern=dict(config.rank_pattern),
        alpha_pattern=dict(config.alpha_pattern),
    )
