"""GGUF files in other number formats, and with other metadata: written tensor by tensor with the gguf package.

The formats are those that the gguf package can write. llama.cpp's own tool has more, such as Q4_K_M.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.config.near_names import unknown
from lora_med.errors import IntegrityError, SettingsError

PRE_TOKENIZER = "tokenizer.ggml.pre"
WIDE = ("token_embd.weight", "output.weight", "per_layer_token_embd.weight")  # most sensitive to 4 and 5 bits
# Routers of experts, and convolutions of state-space layers, which llama.cpp computes from float32 alone.
NEVER_ROUNDED = ("ffn_gate_inp", "ssm_conv1d", "shortconv.conv")


@dataclass(frozen=True)
class NumberFormat:
    """A weight format: gguf's name for it and for that of embedding and head, and llama.cpp's file type."""

    weights: str
    ends: str
    file_type: str


FORMATS = {
    "f32": NumberFormat("F32", "F32", "ALL_F32"),
    "f16": NumberFormat("F16", "F16", "MOSTLY_F16"),
    "bf16": NumberFormat("BF16", "BF16", "MOSTLY_BF16"),
    "q8_0": NumberFormat("Q8_0", "Q8_0", "MOSTLY_Q8_0"),
    "q5_1": NumberFormat("Q5_1", "Q8_0", "MOSTLY_Q5_1"),
    "q5_0": NumberFormat("Q5_0", "Q8_0", "MOSTLY_Q5_0"),
    "q4_1": NumberFormat("Q4_1", "Q8_0", "MOSTLY_Q4_1"),
    "q4_0": NumberFormat("Q4_0", "Q8_0", "MOSTLY_Q4_0"),
}
BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5}
logger = logging.getLogger(__name__)


def check_formats(names: tuple[str, ...]) -> None:
    """Refuse a number format that cannot be written.

    Raises:
        SettingsError: lists the available formats.
    """
    for name in names:
        if name not in FORMATS:
            raise SettingsError(
                unknown("GGUF type", name, FORMATS),
                where="--dtype",
                fix="for the K types, write f16 here and run llama.cpp's own llama-quantize on it",
            )


def write_as(source: Path, target: Path, name: str, *, pre: str | None = None) -> dict[str, int]:
    """Write the float32 GGUF `source` in format `name`; returns how many tensors are stored in each format.

    Only matrices are rounded. If the width is not a whole number of blocks, the matrix is float16. Norms, biases,
    positions, routers, and what of a state space is no matrix product do not change. Embedding and head of the 4 and 5
    bit formats have 8 bits.

    Args:
        pre: the pre-tokenizer's name to put into the metadata.

    Raises:
        IntegrityError: `source` is not a GGUF.
    """
    gguf: Any = importlib.import_module("gguf")

    reader = _open(source)
    number_format = FORMATS[name]
    writer = gguf.GGUFWriter(target, arch=_text(reader, "general.architecture"))
    changed: dict[str, Any] = {"general.file_type": gguf.LlamaFileType[number_format.file_type].value}
    if pre is not None:
        changed[PRE_TOKENIZER] = pre
    copy_metadata(reader, writer, changed)
    kinds = {tensor.name: _kind(tensor, number_format) for tensor in reader.tensors}
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        kind = gguf.GGMLQuantizationType[kinds[tensor.name]]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = int(tensor.n_elements) // block * size
        # With an explicit type, the writer expects the row's length in bytes and computes the number of elements.
        shape[-1] = shape[-1] // block * size
        writer.add_tensor_info(tensor.name, shape, _as_bytes(), count, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        kind = gguf.GGMLQuantizationType[kinds[tensor.name]]
        writer.write_tensor_data(gguf.quantize(tensor.data, kind))
    writer.close()
    formats = list(kinds.values())
    return {kind: formats.count(kind) for kind in sorted(set(formats))}


def copy_metadata(reader: Any, writer: Any, changed: Mapping[str, Any], *, only: str = "") -> None:
    """Copy the metadata whose key begins with `only`; values of `changed` replace those read."""
    gguf: Any = importlib.import_module("gguf")

    for field in reader.fields.values():
        if field.name == gguf.Keys.General.ARCHITECTURE or field.name.startswith("GGUF."):
            continue
        if not field.name.startswith(only):
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        value = changed.get(field.name, field.contents())
        writer.add_key_value(field.name, value, field.types[0], sub_type=inner)


def _open(source: Path) -> Any:
    gguf: Any = importlib.import_module("gguf")

    try:
        reader = gguf.GGUFReader(source)
    except (ValueError, OSError, IndexError) as error:
        raise IntegrityError("not a GGUF file", where=str(source), fix="export it again") from error
    kinds = {tensor.tensor_type.name for tensor in reader.tensors}
    if kinds - {"F32"}:
        raise IntegrityError(f"expected float32 tensors, got {', '.join(sorted(kinds))}", where=str(source))
    return reader


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    if field is None:
        raise IntegrityError(f"the GGUF has no {key}")
    return field.contents()


def _as_bytes() -> Any:
    import numpy

    return numpy.dtype(numpy.uint8)


def _kind(tensor: Any, number_format: NumberFormat) -> str:
    gguf: Any = importlib.import_module("gguf")

    if len(tensor.shape) < 2 or min(tensor.shape) == 1 or "norm" in tensor.name or "pos" in tensor.name:
        return "F32"
    if not tensor.name.endswith(".weight") or any(part in tensor.name for part in NEVER_ROUNDED):
        return "F32"
    name = number_format.ends if tensor.name in WIDE else number_format.weights
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    return name if int(tensor.shape[0]) % block == 0 else "F16"
