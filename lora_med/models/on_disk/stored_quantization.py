"""How a base is quantized on disk, from its config.json alone; a kind that cannot be read is refused by name.

Sources: transformers.utils.quantization_config, and the compressed-tensors format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.files.gguf_base import read_origin
from lora_med.models.limits.sizes import read_settings_file

SECTIONS = ("quantization_config", "compression_config")
BITSANDBYTES, COMPRESSED = "bitsandbytes", "compressed-tensors"
READ = (BITSANDBYTES, "gptq", "awq", "fp8", "fbgemm_fp8", "mxfp4", COMPRESSED)
NOT_READ = ("aqlm", "auto-round", "bitnet", "eetq", "exl2", "exl3", "fouroversix", "fp_quant", "gguf", "higgs", "hqq")
NOT_READ += ("metal", "modelopt", "nvfp4", "quanto", "quark", "sinq", "spqr", "torchao", "vptq")
COMPRESSED_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense")
COMPRESSED_FORMATS += ("nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision")
GPTQ_BITS, GPTQ_FORMATS = (2, 3, 4, 8), ("gptq", "gptq_v2")
ORIGINAL = "name the original that is not quantized as model.base"


@dataclass(frozen=True)
class StoredQuantization:
    """How the weights on disk are quantized; `bits` of a weight, `grouping` as words, `settings` as in config.json.

    `kind` is the data type where the method has several, such as nf4.
    """

    method: str
    bits: int
    kind: str
    grouping: str
    settings: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        parts = [f"{self.method} {self.bits} bit", self.kind, self.grouping]
        return ", ".join(part for part in parts if part)

    @property
    def loads_as(self) -> str | None:
        """`4bit` or `8bit` if bitsandbytes holds the weights in memory as they are on disk, else None."""
        return f"{self.bits}bit" if self.method == BITSANDBYTES else None


def stored_quantization(folder: Path) -> StoredQuantization | None:
    """How the base in `folder` is quantized on disk; None for one that is not.

    Raises:
        SettingsError: by a method that lora_med does not read, or that is unknown.
        IntegrityError: config.json says it in no readable form.
    """
    path = folder / "config.json"
    settings = _section(read_settings_file(path))
    if settings is None:
        return None
    where = f"{path}: quantization_config"
    if not isinstance(settings, dict):
        raise IntegrityError("quantization_config is not a JSON object", where=where, fix="copy the model again")
    method = settings.get("quant_method") or _older_method(settings)
    if method in NOT_READ:
        what = f"the base is quantized on disk by {method}, which lora_med cannot dequantize"
        raise SettingsError(what, where=where, fix=ORIGINAL)
    if method not in READ:
        raise SettingsError(unknown("quant_method", str(method)[:60], READ), where=where, fix=ORIGINAL)
    try:
        return {BITSANDBYTES: _bitsandbytes, COMPRESSED: _compressed}.get(method, _other)(method, settings, where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"quantization_config of {method} cannot be read ({type(error).__name__}: {str(error)[:80]})",
            where=where,
            fix="copy or download the model again",
        ) from error


def base_origin(folder: Path) -> dict[str, Any]:
    """What a card records about a base that was made from a GGUF file or is quantized on disk; empty for any other."""
    stored = stored_quantization(folder)
    if stored is None:
        return read_origin(folder)
    facts = {"method": stored.method, "bits": stored.bits, "kind": stored.kind, "grouping": stored.grouping}
    return {"format": "safetensors, quantized", "quantization": str(stored), **facts}


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json without the settings of its quantization."""
    kept = {key: value for key, value in config.items() if key not in SECTIONS}
    if isinstance(kept.get("text_config"), dict):
        kept["text_config"] = {key: value for key, value in kept["text_config"].items() if key not in SECTIONS}
    return kept


def _section(config: Mapping[str, Any]) -> Any:
    inner = config.get("text_config")
    for settings in (config, inner if isinstance(inner, dict) else {}):
        for key in SECTIONS:
            if settings.get(key) is not None:
                return settings[key]
    return None


def _older_method(settings: Mapping[str, Any]) -> Any:
    """The method where none is named: bitsandbytes files of before 2024 have only their own keys."""
    bits = settings.get("load_in_4bit") or settings.get("load_in_8bit")
    return BITSANDBYTES if bits else settings.get("quant_method")


def _bitsandbytes(method: str, settings: Mapping[str, Any], where: str) -> StoredQuantization:
    if bool(settings.get("load_in_4bit")) == bool(settings.get("load_in_8bit")):
        raise ValueError("one of load_in_4bit and load_in_8bit must be true")
    if settings.get("load_in_8bit"):
        return StoredQuantization(method, 8, "int8", "one scale a row", settings)
    double = ", double quantization" if settings.get("bnb_4bit_use_double_quant") else ""
    kind = str(settings.get("bnb_4bit_quant_type", "fp4"))
    return StoredQuantization(method, 4, kind, f"one scale a block{double}", settings)


def _compressed(method: str, settings: Mapping[str, Any], where: str) -> StoredQuantization:
    groups = list((settings.get("config_groups") or {}).values())
    formats = {settings.get("format"), *(group.get("format") for group in groups)} - {None}
    for name in sorted(formats):
        if name not in COMPRESSED_FORMATS:
            what = f"the base is quantized on disk by {method} in the format {name!r}, which lora_med does not read"
            raise SettingsError(what, where=where, fix=ORIGINAL)
    weights = [group["weights"] for group in groups if group.get("weights")]
    if not weights:
        raise ValueError("config_groups names no weights")
    first = max(weights, key=lambda entry: entry["num_bits"])
    kind = {"float": "floating point", "int": "integers"}.get(first.get("type", "int"), "")
    return StoredQuantization(method, int(first["num_bits"]), kind, _grouping(first), settings)


def _grouping(weights: Mapping[str, Any]) -> str:
    group, block = weights.get("group_size"), weights.get("block_structure")
    if group and group > 0:
        return f"groups of {int(group)}"
    if block:
        return f"blocks of {' x '.join(str(int(edge)) for edge in block)}"
    return {"channel": "one scale a row", "tensor": "one scale a tensor"}.get(str(weights.get("strategy")), "")


def _other(method: str, settings: Mapping[str, Any], where: str) -> StoredQuantization:
    if method in ("gptq", "awq"):
        bits, group = int(settings.get("bits", 4)), int(settings.get("group_size", 128))
        layout = str(settings.get("checkpoint_format") or settings.get("version") or settings.get("format") or method)
        layouts = GPTQ_FORMATS if method == "gptq" else ("gemm", "awq")
        if bits not in (GPTQ_BITS if method == "gptq" else (4,)) or layout.lower() not in layouts:
            what = f"the base is quantized on disk by {method} to {bits} bits in the layout {layout!r}"
            raise SettingsError(f"{what}, which lora_med does not read", where=where, fix=ORIGINAL)
        return StoredQuantization(method, bits, "", f"groups of {group}" if group > 0 else "one scale a row", settings)
    if method == "mxfp4":
        return StoredQuantization(method, 4, "", "groups of 32", settings)
    block = settings.get("weight_block_size")
    grouping = f"blocks of {' x '.join(str(int(edge)) for edge in block)}" if block else ""
    return StoredQuantization(method, 8, "e4m3", grouping, settings)
