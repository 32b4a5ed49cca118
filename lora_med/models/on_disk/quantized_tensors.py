"""The tensors of a base that is quantized on disk, sorted by headers alone: which of them make which weight.

Every tensor belongs to a weight, is kept as it is, or is a known scale of activations that a full-precision base does
not use. A part that is absent, or a quantized tensor that no rule explains, is an error with its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.models.files.weight_files import Stored, read_headers
from lora_med.models.on_disk.quantized_weights import READERS, Grouping, Values, quant_state
from lora_med.models.on_disk.stored_quantization import COMPRESSED, StoredQuantization

BYTES = ("F8_E4M3", "F8_E5M2", "I8")
QUANTIZED = (*BYTES, "U8")
ACTIVATIONS = ("input_scale", "output_scale", "input_zero_point", "output_zero_point", "input_global_scale")
ACTIVATIONS += ("k_scale", "v_scale", "k_zero_point", "v_zero_point", "activation_scale", "input_scale_ub")
ACTIVATIONS += ("weight_format", "activation_scale_ub", "wf_unsqueeze_zero", "wf_unsqueeze_neg_one")
COPY = "copy or download the model again"
# method: the tensor that names a weight, the parts it needs, the parts it may have
PACKED: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "gptq": ("qweight", ("qweight", "qzeros", "scales"), ("g_idx",)),
    "awq": ("qweight", ("qweight", "qzeros", "scales"), ()),
    "pack_quantized": (
        "weight_packed",
        ("weight_packed", "weight_scale", "weight_shape"),
        ("weight_zero_point", "weight_g_idx"),
    ),
    "packed_fp4": ("weight_packed", ("weight_packed", "weight_scale"), ("weight_global_scale",)),
}


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight by its name in a full-precision base, with the tensors it is made from and how."""

    name: str
    reader: str
    parts: Mapping[str, Stored]
    how: Grouping

    def values(self) -> Values:
        """Its dequantized values.

        Raises:
            IntegrityError: the parts do not fit together; the message names the weight.
        """
        tensors = {part: read_tensor(stored) for part, stored in self.parts.items()}
        first = next(iter(self.parts.values()))
        try:
            return READERS[self.reader](tensors, self.how)
        except IntegrityError as error:
            raise IntegrityError(f"{self.name!r}: {error.what}", where=str(first.file), fix=COPY) from error
        except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError) as error:  # sizes that contradict
            raise IntegrityError(
                f"{self.name!r} cannot be dequantized: its parts have shapes that do not fit "
                f"({', '.join(f'{part} {list(stored.shape)}' for part, stored in self.parts.items())})",
                where=str(first.file),
                fix=COPY,
            ) from error


@dataclass(frozen=True)
class QuantizedTensors:
    """All weights of a base that are quantized on disk, and the tensors that are kept as they are."""

    weights: tuple[QuantizedWeight, ...]
    kept: Mapping[str, Stored] = field(repr=False)


def read_tensor(stored: Stored) -> Any:
    """The tensor in its own dtype."""
    from safetensors import safe_open

    with safe_open(stored.file, framework="pt") as handle:
        return handle.get_tensor(stored.name)


def quantized_tensors(folder: Path, how: StoredQuantization) -> QuantizedTensors:
    """The tensors of the base in `folder`, sorted.

    Raises:
        IntegrityError: a part of a weight is absent, or a quantized tensor belongs to no weight.
        InputMissingError: as `read_headers`.
    """
    stored = read_headers(folder)
    weights: list[QuantizedWeight] = []
    used: set[str] = set()
    for name in stored:
        weight = _weight_of(name, stored, how, folder)
        if weight is not None:
            weights.append(weight)
            used |= {part.name for part in weight.parts.values()}
    rest = {name: tensor for name, tensor in stored.items() if name not in used}
    kept = {name: tensor for name, tensor in rest.items() if name.rpartition(".")[2] not in ACTIVATIONS}
    strange = next((name for name, tensor in kept.items() if tensor.dtype in QUANTIZED), None)
    if strange is not None:
        raise IntegrityError(
            f"tensor {strange!r} is {kept[strange].dtype} and has no scale beside it",
            where=str(kept[strange].file),
            fix=COPY,
        )
    doubled = next((weight.name for weight in weights if weight.name in kept), None)
    if doubled is not None:
        raise IntegrityError(f"{doubled!r} is there quantized and in full", where=str(folder), fix=COPY)
    if not weights:
        raise IntegrityError(
            f"config.json says {how}, and no tensor is quantized so",
            where=str(folder),
            fix="delete quantization_config from config.json if the weights are in full precision",
        )
    return QuantizedTensors(tuple(weights), kept)


def _weight_of(
    name: str, stored: Mapping[str, Stored], how: StoredQuantization, folder: Path
) -> QuantizedWeight | None:
    """The weight that the tensor `name` stands for, if it is the one that names a weight."""
    tensor = stored[name]
    if how.method == "bitsandbytes":
        return _bitsandbytes(name, stored, how)
    if how.method == "mxfp4":
        if not name.endswith("_blocks"):
            return None
        plain = name.removesuffix("_blocks")
        parts = {"blocks": tensor, "scales": _part(stored, f"{plain}_scales", plain)}
        return QuantizedWeight(plain, "mxfp4_experts", parts, Grouping())
    kind = how.method if how.method in PACKED else "packed_fp4" if tensor.dtype == "U8" else "pack_quantized"
    main, needed, possible = PACKED[kind]
    if name.endswith(f".{main}"):
        layer = name.removesuffix(f".{main}")
        parts = {part: _part(stored, f"{layer}.{part}", f"{layer}.weight") for part in needed}
        parts |= {part: stored[f"{layer}.{part}"] for part in possible if f"{layer}.{part}" in stored}
        return QuantizedWeight(f"{layer}.weight", kind, parts, _grouping(how, parts))
    scale = next((stored[name + end] for end in ("_scale_inv", "_scale") if name + end in stored), None)
    if tensor.dtype not in BYTES or scale is None or how.method in PACKED:
        return None
    parts = {"weight": tensor, "scale": scale}
    if f"{name}_zero_point" in stored:
        parts["zero_point"] = stored[f"{name}_zero_point"]
    return QuantizedWeight(name, "scaled", parts, Grouping(block=_block(how)))


def _bitsandbytes(name: str, stored: Mapping[str, Stored], how: StoredQuantization) -> QuantizedWeight | None:
    if how.bits == 8:
        scales = stored.get(f"{name.removesuffix('.weight')}.SCB")
        if stored[name].dtype != "I8" or not name.endswith(".weight") or scales is None:
            return None
        return QuantizedWeight(name, "bitsandbytes_8bit", {"weight": stored[name], "SCB": scales}, Grouping())
    state = next(
        (key for key in (f"{name}.quant_state.bitsandbytes__{k}" for k in ("nf4", "fp4")) if key in stored), ""
    )
    if not state:
        return None
    parts = {"weight": stored[name], "state": stored[state]}
    parts |= {part: _part(stored, f"{name}.{part}", name) for part in ("absmax", "quant_map")}
    if "nested_blocksize" in quant_state(read_tensor(stored[state])):
        parts |= {part: _part(stored, f"{name}.{part}", name) for part in ("nested_absmax", "nested_quant_map")}
    return QuantizedWeight(name, "bitsandbytes_4bit", parts, Grouping())


def _part(stored: Mapping[str, Stored], part: str, weight: str) -> Stored:
    if part not in stored:
        where = str(next(iter(stored.values())).file.parent)
        raise IntegrityError(f"{weight!r} is quantized, and its part {part!r} is absent", where=where, fix=COPY)
    return stored[part]


def _grouping(how: StoredQuantization, parts: Mapping[str, Stored]) -> Grouping:
    if how.method == COMPRESSED:
        return Grouping(bits=_bits(how, parts))
    group = int(how.settings.get("group_size", 128))
    older = str(how.settings.get("checkpoint_format") or "gptq") == "gptq"
    return Grouping(bits=how.bits, group=max(0, group), zeros_minus_one=older)


def _bits(how: StoredQuantization, parts: Mapping[str, Stored]) -> int:
    """The bits of a packed weight, by its own width where groups of layers differ."""
    declared = {int(g["weights"]["num_bits"]) for g in how.settings["config_groups"].values() if g.get("weights")}
    if len(declared) == 1 or "weight_shape" not in parts:
        return how.bits
    columns = int(read_tensor(parts["weight_shape"]).flatten()[-1])
    fitting = [bits for bits in declared if -(-columns * bits // 32) == parts["weight_packed"].shape[-1]]
    if len(fitting) != 1:
        raise IntegrityError("a packed weight has a width of no declared number of bits", fix=COPY)
    return fitting[0]


def _block(how: StoredQuantization) -> tuple[int, int] | None:
    block: Any = how.settings.get("weight_block_size")
    if how.method == COMPRESSED:
        groups = [g["weights"] for g in how.settings["config_groups"].values() if g.get("weights")]
        block = next((group.get("block_structure") for group in groups if group.get("block_structure")), None)
    return (int(block[0]), int(block[1])) if block else None
