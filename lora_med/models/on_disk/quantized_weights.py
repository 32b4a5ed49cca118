"""The weights of a base that are quantized on disk: which tensors make each, and the values that they stand for.

Sources: the packing of AutoGPTQ and AutoAWQ, transformers' finegrained FP8 and MXFP4, the Open Compute Project's MX
formats, compressed-tensors, and the state that bitsandbytes saves beside its weights. Values are computed in float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.errors import IntegrityError
from lora_med.models.on_disk.packed_integers import unpack, unpack_awq

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = torch.tensor([*FP4, *(-number for number in FP4)])
E2M1_STEPS = torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0] * 2)  # to the farther neighbor
INT8_CODES = 7.874015718698502e-3  # 1 / 127 as bitsandbytes has it
FLOAT8_BITS, FLOAT8_LEAST = {torch.float8_e4m3fn: 3, torch.float8_e5m2: 2}, {torch.float8_e4m3fn: -6}
SMALLEST_EXPONENT = -14  # of E5M2
Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class Values:
    """The dequantized numbers of a weight in float32, and what gives the format's step at each.

    A step is the distance to the farther neighboring number. It is computed when it is called for.
    """

    numbers: Any
    steps: Callable[[], Any]


@dataclass(frozen=True)
class Grouping:
    """The integers' bits, how many inputs share a scale (0: all), the rows of a block, and GPTQ's older zero points."""

    bits: int = 4
    group: int = 0
    block: tuple[int, int] | None = None
    zeros_minus_one: bool = False


def gptq(parts: Tensors, how: Grouping) -> Values:
    """GPTQ: words along the inputs, a scale and a zero point for each group and output, groups named by `g_idx`."""
    scales = parts["scales"].float()
    groups, outputs = scales.shape
    inputs = parts["qweight"].shape[0] * 32 // how.bits
    codes = unpack(parts["qweight"].T.contiguous(), how.bits, inputs)
    zeros = unpack(parts["qzeros"], how.bits, outputs)
    if how.zeros_minus_one:
        zeros = (zeros + 1) & ((1 << how.bits) - 1)
    regular = torch.arange(inputs) // (how.group or inputs)
    named = parts.get("g_idx")
    named = regular if named is None or not named.numel() else named.long()
    _expect(named.shape == (inputs,) and int(named.min()) >= 0 and int(named.max()) < groups, "g_idx")
    _expect(parts["qzeros"].shape == (groups, math.ceil(outputs * how.bits / 32)), "qzeros")
    _expect(parts["qweight"].shape[1] == outputs, "scales")
    zeros, scales = zeros.float().T.contiguous(), scales.T.contiguous()
    if inputs % groups == 0 and torch.equal(named, torch.arange(inputs) // (inputs // groups)):
        numbers = codes.view(outputs, groups, -1).float().sub_(zeros[..., None]).mul_(scales[..., None])
        return Values(numbers.view(outputs, inputs), lambda: scales[:, named].abs())
    return Values(codes.float().sub_(zeros[:, named]).mul_(scales[:, named]), lambda: scales[:, named].abs())


def awq(parts: Tensors, how: Grouping) -> Values:
    """AutoAWQ's GEMM layout: words along the outputs in an order of their own, one scale and zero for each group."""
    scales = parts["scales"].float()
    codes, zeros = unpack_awq(parts["qweight"]), unpack_awq(parts["qzeros"])
    inputs, outputs = codes.shape
    group = min(how.group or inputs, inputs)
    _expect(zeros.shape == scales.shape == (math.ceil(inputs / group), outputs), "scales")
    steps = scales.repeat_interleave(group, 0)[:inputs]
    numbers = codes.float().sub_(zeros.float().repeat_interleave(group, 0)[:inputs]).mul_(steps)
    return Values(numbers.T.contiguous(), lambda: steps.abs().T)


def pack_quantized(parts: Tensors, how: Grouping) -> Values:
    """compressed-tensors' packed integers: offset to be unsigned, with a zero point where they are not symmetric."""
    rows, columns = (int(size) for size in parts["weight_shape"].flatten().tolist())
    _expect(parts["weight_packed"].shape == (rows, math.ceil(columns * how.bits / 32)), "weight_shape")
    codes = unpack(parts["weight_packed"], how.bits, columns).float() - (1 << (how.bits - 1))
    scales = parts["weight_scale"].float()
    zeros = parts.get("weight_zero_point")
    if zeros is not None:
        zeros = unpack(zeros.T.contiguous(), how.bits, rows).T.float() - (1 << (how.bits - 1))
        _expect(zeros.shape == scales.shape, "weight_zero_point")
        zeros = _by_group(zeros, parts.get("weight_g_idx"), (rows, columns))
    steps = _by_group(scales, parts.get("weight_g_idx"), (rows, columns))
    return Values((codes if zeros is None else codes.sub_(zeros)).mul_(steps), steps.abs)


def scaled(parts: Tensors, how: Grouping) -> Values:
    """A byte a weight, FP8 or INT8, times the scale of its tensor, row, group or block."""
    weight, scale = parts["weight"], _scale(parts["scale"])
    spread = _expand(scale, tuple(weight.shape), how.block)
    numbers = weight.float()
    zeros = parts.get("zero_point")
    if zeros is not None:
        numbers = numbers.sub_(_expand(zeros.float(), tuple(weight.shape), how.block))

    def steps() -> Any:
        return (torch.ones(()) if weight.dtype == torch.int8 else _float8_steps(weight)) * spread.abs()

    return Values(numbers.mul_(spread), steps)


def packed_fp4(parts: Tensors, how: Grouping) -> Values:
    """NVFP4 and MXFP4 of compressed-tensors: two numbers a byte, a scale for each group, and one for all in NVFP4."""
    packed = parts["weight_packed"]
    numbers = _pairs(packed, E2M1)
    scale = _scale(parts["weight_scale"])
    if parts.get("weight_global_scale") is not None:
        scale = scale / parts["weight_global_scale"].float()
    spread = _expand(scale, tuple(numbers.shape), None)
    return Values(numbers.mul_(spread), lambda: _pairs(packed, E2M1_STEPS) * spread.abs())


def mxfp4_experts(parts: Tensors, how: Grouping) -> Values:
    """GPT-OSS: bytes (experts, outputs, groups, 16) and exponents (experts, outputs, groups); inputs before outputs."""
    blocks, exponents = parts["blocks"], parts["scales"]
    _expect(blocks.dim() == 4 and tuple(blocks.shape[:-1]) == tuple(exponents.shape), "scales")
    spread = _scale(exponents)[..., None]

    def spread_out(table: Any) -> Any:
        return _pairs(blocks, table).mul_(spread).reshape(*blocks.shape[:2], -1).transpose(1, 2).contiguous()

    return Values(spread_out(E2M1), lambda: spread_out(E2M1_STEPS))


def bitsandbytes_4bit(parts: Tensors, how: Grouping) -> Values:
    """NF4 or FP4: the codes' values times the largest value of each group, which may be quantized itself.

    Then a step is that of the code, and what one step of the largest value moves it by.
    """
    state = quant_state(parts["state"])
    table, largest, error = parts["quant_map"].float(), parts["absmax"], None
    if parts.get("nested_absmax") is not None:
        number = torch.arange(len(largest)) // int(state["nested_blocksize"])
        _expect(len(number) > 0 and int(number[-1]) < len(parts["nested_absmax"]), "nested_absmax")
        outer, inner, codes = parts["nested_absmax"].float()[number], parts["nested_quant_map"].float(), largest.int()
        largest = inner.index_select(0, codes) * outer + float(state["nested_offset"])
        error = _gaps(inner).index_select(0, codes) * outer
    packed, count, group = parts["weight"].flatten(), math.prod(state["shape"]), int(state["blocksize"])
    _expect(len(packed) == math.ceil(count / 2) and len(largest) == math.ceil(count / group), "absmax")

    def spread_out(values: Any, by_group: Any) -> Any:
        numbers = _pairs(packed, values, high_first=True)[:count]
        if count % group == 0:
            return numbers.view(-1, group).mul_(by_group[:, None]).view(state["shape"])
        return numbers.mul_(by_group.repeat_interleave(group)[:count]).view(state["shape"])

    def steps() -> Any:
        own = spread_out(_gaps(table), largest.abs())
        return own if error is None else own.add_(spread_out(table.abs(), error))

    largest = largest.float()
    return Values(spread_out(table, largest), steps)


def bitsandbytes_8bit(parts: Tensors, how: Grouping) -> Values:
    """LLM.int8: a byte a weight, and the largest value of each row."""
    _expect(parts["SCB"].shape == parts["weight"].shape[:1], "SCB")
    largest = parts["SCB"].float()[:, None]
    return Values(parts["weight"].float() * largest * INT8_CODES, lambda: largest * INT8_CODES)


def quant_state(stored: Any) -> dict[str, Any]:
    """The settings that bitsandbytes saves as the bytes of a JSON object.

    Raises:
        IntegrityError: they cannot be read.
    """
    try:
        state = json.loads(bytes(stored.tolist()))
        return {**state, "shape": [int(edge) for edge in state["shape"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("the quantization state of bitsandbytes cannot be read") from error


def _expect(fits: bool, part: str) -> None:
    if not fits:
        raise IntegrityError(f"{part} does not have the shape that the weight needs")


def _by_group(values: Any, named: Any, shape: tuple[int, int]) -> Any:
    """One value for each weight, from (rows, groups); `named` holds the group of each input where they are mixed."""
    if named is not None and named.numel() and int(named.min()) >= 0:
        _expect(named.shape == shape[1:] and int(named.max()) < values.shape[-1], "weight_g_idx")
        return values[:, named.long()].expand(shape)
    return _expand(values, shape, None)


def _scale(scale: Any) -> Any:
    """A scale in float32; a byte is an exponent of two with a bias of 127 (E8M0)."""
    return torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()


def _expand(scale: Any, shape: tuple[int, ...], block: tuple[int, int] | None) -> Any:
    """The scale of each weight: of the tensor, of its row, of its group of inputs, or of its block."""
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.dim() == 1 and len(shape) == 2:
        scale = scale[:, None]
    _expect(scale.dim() == len(shape) > 1, "scale")
    edges = [size // max(1, parts) for size, parts in zip(shape, scale.shape, strict=True)]
    if block is not None and min(block) > 0:
        blocks = tuple(math.ceil(size / edge) for size, edge in zip(shape[-2:], block, strict=True))
        _expect(tuple(scale.shape[-2:]) in (blocks, (shape[-2], 1)), "scale")
        if tuple(scale.shape[-2:]) == blocks:
            edges[-2:] = block
    for axis, (size, edge) in enumerate(zip(shape, edges, strict=True)):
        _expect(edge > 0 and scale.shape[axis] == math.ceil(size / edge), "scale")
        if scale.shape[axis] not in (1, size):
            scale = scale.repeat_interleave(edge, axis).narrow(axis, 0, size)
    return scale


def _pairs(packed: Any, table: Any, *, high_first: bool = False) -> Any:
    """The values of the two 4-bit codes in each byte, twice as many as bytes along the last axis.

    Args:
        table: the value of each of the 16 codes.
        high_first: the upper half of a byte comes first.
    """
    low, high = table.repeat(16), table.repeat_interleave(16)
    of_byte = torch.stack((high, low) if high_first else (low, high), -1)
    return of_byte.index_select(0, packed.flatten().int()).view(*packed.shape[:-1], 2 * packed.shape[-1])


def _gaps(table: Any) -> Any:
    """The distance from each value of a table to its farther neighbor."""
    ordered = table.sort()
    gaps = ordered.values.diff()
    farther = torch.maximum(torch.cat((gaps[:1], gaps)), torch.cat((gaps, gaps[-1:])))
    return torch.empty_like(table).index_copy_(0, ordered.indices, farther)


def _float8_steps(weight: Any) -> Any:
    """The distance between neighboring numbers of FP8 at each weight."""
    exponents = torch.frexp(weight.float()).exponent - 1
    least = FLOAT8_LEAST.get(weight.dtype, SMALLEST_EXPONENT)
    return torch.exp2((exponents.clamp(min=least) - FLOAT8_BITS[weight.dtype]).float())


READERS: dict[str, Callable[[Tensors, Grouping], Values]] = {
    "gptq": gptq,
    "awq": awq,
    "pack_quantized": pack_quantized,
    "scaled": scaled,
    "packed_fp4": packed_fp4,
    "mxfp4_experts": mxfp4_experts,
    "bitsandbytes_4bit": bitsandbytes_4bit,
    "bitsandbytes_8bit": bitsandbytes_8bit,
}
