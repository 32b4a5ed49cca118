"""What a load of a base reads: its files as they are, or the dequantized values of one that is quantized on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.models.files.weight_files import read_headers
from lora_med.models.on_disk.stored_quantization import StoredQuantization, stored_quantization
from lora_med.models.precision import Choice
from lora_med.models.quantize import is_sharded, quiet_casts


@dataclass(frozen=True)
class WeightsSource:
    """The folder that a load reads, its configuration, and whether its weights are quantized already.

    `quantization` is that in memory: as requested, or as on disk. `double_quant` is that of the weights. `choices`
    is what the run reports about it.
    """

    folder: Path
    config: Any
    is_quantized: bool
    quantization: str
    double_quant: bool
    choices: tuple[Choice, ...]


def weights_source(
    folder: Path, config: Any, *, quantization: str, double_quant: bool, dtype: str, heads: Sequence[str] = ()
) -> WeightsSource:
    """What to load for a base in `folder`, whose values are dequantized now if need be.

    Args:
        config: its configuration, which is changed in place to fit what is loaded.
        quantization: as requested: `none`, `8bit` or `4bit`.
        heads: names of a new head, which is never quantized.

    Raises:
        SettingsError, IntegrityError, OutputError, DiskError: as `values_folder`.
    """
    stored = stored_quantization(folder)
    if stored is None:
        return WeightsSource(folder, config, False, quantization, double_quant, ())
    if takes_as_stored(folder, quantization):
        return _as_stored(folder, config, stored, dtype, heads)
    from lora_med.models.on_disk.dequantized_base import values_folder  # it loads torch: seconds for a list of adapters

    values = values_folder(folder)
    gigabytes = sum(tensor.size for tensor in read_headers(values).values()) / 1e9
    forget_quantization(config)
    choice = _dequantized(stored, quantization, gigabytes)
    return WeightsSource(values, config, False, quantization, double_quant, (choice,))


def forget_quantization(config: Any) -> None:
    """Take what config.json says about the quantization on disk out of a configuration."""
    for settings in (config, config.get_text_config()):
        if hasattr(settings, "quantization_config"):
            del settings.quantization_config


def takes_as_stored(folder: Path, quantization: str) -> bool:
    """Whether a load takes the weights as they are on disk: those of bitsandbytes, unless full precision is requested.

    To quantize them again, 8 bits to 4, would only lose. Under FSDP they cannot be taken: only weights that are
    quantized for it can be sharded.
    """
    if quantization == "none" or is_sharded():
        return False
    stored = stored_quantization(folder)
    return stored is not None and stored.loads_as is not None


def stored_bits(folder: Path) -> str:
    """The quantization that holds a base in memory as it is on disk: `4bit` or `8bit` of bitsandbytes, else `none`."""
    stored = stored_quantization(folder)
    return "none" if stored is None or stored.loads_as is None else stored.loads_as


def _as_stored(
    folder: Path, config: Any, stored: StoredQuantization, dtype: str, heads: Sequence[str]
) -> WeightsSource:
    quiet_casts()
    settings = dict(stored.settings)
    if stored.bits == 4:
        settings["bnb_4bit_compute_dtype"] = dtype
    if heads:
        settings["llm_int8_skip_modules"] = [*(settings.get("llm_int8_skip_modules") or ()), *heads]
    config.quantization_config = settings
    reason = "the base is quantized so on disk; load_in_4bit, load_in_8bit and bnb_4bit_* do not change it"
    choice = Choice("weights", str(stored), reason)
    double_quant = bool(settings.get("bnb_4bit_use_double_quant"))
    return WeightsSource(folder, config, True, f"{stored.bits}bit", double_quant, (choice,))


def _dequantized(stored: StoredQuantization, quantization: str, gigabytes: float) -> Choice:
    if quantization == "none":
        value = f"dequantized, {gigabytes:.2f} GB"
        reason = f"the base is quantized on disk ({stored}); model.load_in_4bit=true holds it in less memory"
    else:
        bits = quantization.removesuffix("bit")
        value = f"dequantized, then quantized to {bits} bits"
        exact = f"model.load_in_{bits}bit=false trains on its exact values in {gigabytes:.2f} GB"
        reason = f"the base is quantized on disk in another way ({stored}); {exact}"
    return Choice("weights", value, reason)
