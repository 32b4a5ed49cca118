"""4-bit (QLoRA) and 8-bit bases through bitsandbytes, on GPU and CPU, with gradients that stay exact."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.errors import DependencyMissingError, SettingsError
from lora_med.models.precision import Choice

QUANTIZATIONS = ("none", "8bit", "4bit")
QUANT_TYPES = ("nf4", "fp4")
READ_DIRECTLY = ("mamba", "falcon_mamba")  # `dt_proj.weight @ ...` in transformers' code


def bitsandbytes_config(quantization: str, *, quant_type: str, double_quant: bool, dtype: str) -> Any:
    """What transformers needs to quantize while loading, or None for `none`.

    The output head, and embeddings tied to it, are not quantized: transformers leaves them out by default.

    Raises:
        SettingsError: an unknown quantization or data type.
        DependencyMissingError: bitsandbytes is not installed.
    """
    if quantization not in QUANTIZATIONS:
        raise SettingsError(unknown("quantization", quantization, QUANTIZATIONS), where="model")
    if quantization == "none":
        return None
    if quant_type not in QUANT_TYPES:
        raise SettingsError(unknown("4-bit data type", quant_type, QUANT_TYPES), where="model.bnb_4bit_quant_type")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise DependencyMissingError(
            f"{quantization} needs bitsandbytes, which is not installed",
            fix="pip install bitsandbytes -c constraints.txt, or set model.load_in_4bit=false",
        )
    load_bitsandbytes()
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        quiet_casts()
        return BitsAndBytesConfig(load_in_8bit=True)
    storage = getattr(torch, dtype) if is_sharded() else torch.uint8
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        bnb_4bit_quant_storage=storage,
    )


def quiet_casts() -> None:
    """Keep bitsandbytes from warning about the cast of 8-bit layers' inputs to float16 once per layer and call."""
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def is_sharded() -> bool:
    """Whether accelerate launched this process under FSDP, which can shard only floating-point tensors."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def storage_choice(dtype: str) -> Choice:
    """The reported choice of 4-bit storage under FSDP."""
    return Choice("4-bit storage", dtype, "FSDP shards floating-point tensors only")


def refuse_quantization(quantization: str, config: Any) -> None:
    """Refuse to quantize a base whose code multiplies by a weight directly, past its layer.

    Raises:
        SettingsError: with what to set.
    """
    if quantization != "none" and config.model_type in READ_DIRECTLY:
        raise SettingsError(
            f"model type {config.model_type!r} reads weights of its layers directly, so they cannot be in 4 or 8 bits",
            where="model.load_in_4bit",
            fix="model.load_in_4bit=false",
        )


def keep_gradients_exact(model: Any) -> int:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16; returns the number of layers set.

    On such a CPU, the first forward pass without gradients in eval mode repacks the weights for an operator without a
    backward pass. Every later gradient through the layer is then wrong, and there is only a warning. So no layer may
    take that path.
    """
    if "bitsandbytes" not in sys.modules:  # so the model has no such layer, and the import is saved
        return 0
    from bitsandbytes.nn.modules import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def load_bitsandbytes() -> None:
    """Import bitsandbytes without torch's compiler, which takes two seconds to load.

    At import, bitsandbytes compiles four functions that most runs never call; here each is compiled at its first call.
    Call this before anything else imports bitsandbytes. PEFT imports it for every base, and transformers' trainer
    imports PEFT. If bitsandbytes is not installed, nothing happens.
    """
    if "bitsandbytes" in sys.modules or importlib.util.find_spec("bitsandbytes") is None:
        return
    import torch

    compile_now = torch.compile
    torch.compile = functools.partial(_compile_later, compile_now)
    kernels = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = kernels.level
    kernels.setLevel(logging.ERROR)  # it asks for a package whose kernels no layer here may use: see above
    try:
        importlib.import_module("bitsandbytes")
    finally:
        torch.compile = compile_now
        kernels.setLevel(level)


def _compile_later(compile_now: Callable[..., Any], function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`torch.compile`, with or without options, delayed until the first call."""
    if function is None:
        return functools.partial(_compile_later, compile_now, **options)
    compiled = functools.cache(lambda: compile_now(function, **options))

    @functools.wraps(function)
    def run(*arguments: Any, **keywords: Any) -> Any:
        return compiled()(*arguments, **keywords)

    return run
