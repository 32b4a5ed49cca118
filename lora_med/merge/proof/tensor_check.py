"""Proof of a merge without a model in memory: tensors read back, and rows of each recomputed in fp64.

Unchanged tensors must be the base's bytes. Changed tensors must be within one rounding of the exact sum. The arithmetic
here shares only the reading of files with the fold's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch

from lora_med.adapters.tensors.contents import LowRank
from lora_med.adapters.tensors.weight_update import row_factor
from lora_med.errors import IntegrityError
from lora_med.merge.fold.dequantized_values import dequantized_values_of
from lora_med.merge.fold.merge_plan import Output, Plan
from lora_med.merge.fold.row_blocks import DequantizedValues, final_dtype, touches
from lora_med.models.files.weight_files import (
    FLOATS,
    Stored,
    is_finite,
    open_descriptor,
    open_stored,
    read_headers,
    read_rows,
    torch_dtype,
)
from lora_med.models.structure.tensor_names import StackPart

ROWS = 16  # of each changed tensor are recomputed
READ_BYTES = 1 << 23
# Half the distance between neighboring numbers of each dtype: relative to the number, and its absolute minimum.
ROUNDING = {"F64": (2**-53, 0.0), "F32": (2**-24, 2**-150), "BF16": (2**-8, 2**-134), "F16": (2**-11, 2**-25)}


@dataclass(frozen=True)
class TensorProof:
    """The result of reading the merged files back.

    `largest_error` is in units of the error that one rounding to the result's dtype, and sums in fp32, may cause. Up to
    1 is as accurate as possible. `unchanged` is the share of the adapted layers' weights that rounding leaves at the
    base's value, although the adapter changes them.
    """

    tensors: int
    copied: int
    rows_recomputed: int
    largest_error: float
    unchanged: float


def recompute(plan: Plan, out: Path, *, dtype: str | None = None, seed: int = 0) -> TensorProof:
    """Compare the merged files in `out` with the plan they came from.

    Args:
        dtype: of the result, by safetensors' name (`BF16`), or None for the base's own.
        seed: of the random choice of rows.

    Raises:
        IntegrityError: a tensor is missing, not finite, not the base's bytes, or differs by more than one rounding.
    """
    merged_tensors = read_headers(out)
    if set(merged_tensors) != set(plan.outputs):
        differing = sorted(set(merged_tensors) ^ set(plan.outputs))
        raise IntegrityError(
            f"the merged files lack or add {len(differing)} tensors, such as {differing[0]!r}",
            where=str(out),
            fix="merge again",
        )
    draw = random.Random(seed)
    copied = rows = moved = adapted = 0
    worst = 0.0
    for name, output in plan.outputs.items():
        merged = merged_tensors[name]
        if output.written_shape not in (None, output.shape) and merged.shape == output.written_shape:
            merged = replace(merged, shape=output.shape)  # all experts of a layer, their rows below each other
        if not touches(output, dtype):
            _same_bytes(output.source, merged)
            copied += 1
            continue
        dequantized = None
        if output.quantized is not None:
            with open_descriptor(output.source) as handle:
                dequantized = dequantized_values_of(output, handle.fileno())
        counted = _read_back(output, merged, dequantized)
        if output.low_rank is not None:
            moved, adapted = moved + counted, adapted + math.prod(merged.shape)
        chosen = sorted(draw.sample(range(merged.shape[0]), min(ROWS, merged.shape[0])))
        error = _largest_error(output, merged, chosen, dequantized, final_dtype(output, dtype))
        if error > 1:
            raise IntegrityError(
                f"{name!r} is not base + adapter: it differs by {error:.3g} roundings; allowed is 1",
                where=str(merged.file),
                fix="merge again",
            )
        rows, worst = rows + len(chosen), max(worst, error)
    return TensorProof(
        tensors=len(merged_tensors),
        copied=copied,
        rows_recomputed=rows,
        largest_error=round(worst, 4),
        unchanged=round(1 - moved / adapted, 6) if adapted else 0.0,
    )


def _blocks(stored: Stored) -> Iterator[tuple[int, int]]:
    row = max(1, stored.size // stored.shape[0])
    step = max(1, READ_BYTES // row)
    for begin in range(0, stored.shape[0], step):
        yield begin, min(stored.shape[0], begin + step)


def _same_bytes(base: Stored, merged: Stored) -> None:
    with open_stored(base) as first, open_stored(merged) as second:
        first.seek(base.start)
        second.seek(merged.start)
        for begin in range(0, base.size, READ_BYTES):
            count = min(READ_BYTES, base.size - begin)
            before, after = first.read(count), second.read(count)
            if before != after:
                raise IntegrityError(f"{base.name!r} has other bytes than the base's", where=str(merged.file))
            numbers = (
                torch.frombuffer(bytearray(after), dtype=torch_dtype(base.dtype)) if base.dtype in FLOATS else None
            )
            if numbers is not None and not is_finite(numbers):
                raise IntegrityError(f"{base.name!r} of the base is not finite", where=str(base.file))


def _read_back(output: Output, merged: Stored, dequantized: DequantizedValues | None) -> int:
    """The count of numbers that differ from the base's in the result's precision; all must be finite."""
    moved = 0
    with open_stored(output.source) as first, open_stored(merged) as second:
        for begin, end in _blocks(merged):
            before, after = base_rows(first, output.source, begin, end), read_rows(second, merged, begin, end)
            if dequantized is not None:
                before = dequantized.nearest(before, begin)
            if not is_finite(after):
                raise IntegrityError(f"{output.name!r} holds a value that is not finite", where=str(merged.file))
            moved += int(torch.count_nonzero(before.to(after.dtype) != after))
    return moved


def _largest_error(
    output: Output, merged: Stored, chosen: list[int], dequantized: DequantizedValues | None, dtype: str
) -> float:
    with open_stored(output.source) as first, open_stored(merged) as second:
        before = [(row, base_rows(first, output.source, row, row + 1)) for row in chosen]
        base = torch.cat(
            [rows if dequantized is None else dequantized.nearest(rows, row) for row, rows in before]
        ).double()
        actual = torch.cat([read_rows(second, merged, row, row + 1) for row in chosen]).double()
    exact, spread = _exact_rows(output, chosen, base, dequantized)
    relative, least = ROUNDING[dtype]
    # the error of fp32 sums is a few fp32 roundings of the summed values; the result is rounded once
    allowed = exact.abs() * relative * (1 + 2**-10) + least + spread * 2**-21
    return float(((actual - exact).abs() / allowed).max())


def base_rows(handle: BinaryIO, source: Stored, begin: int, end: int) -> torch.Tensor:
    """Rows of the base's tensor; of a new token, which has none there, zeros."""
    last = min(end, source.shape[0])
    rows = read_rows(handle, source, min(begin, last), last)
    return torch.cat([rows, rows.new_zeros((end - begin - len(rows), *rows.shape[1:]))]) if last < end else rows


def _exact_rows(
    output: Output, chosen: list[int], base: torch.Tensor, dequantized: DequantizedValues | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the merged tensor in fp64, and the magnitude of the summed values, which bounds the error of fp32."""
    spread = base.abs()
    if output.low_rank is not None and output.experts is not None:
        return _exact_expert_rows(output, output.low_rank, output.experts, chosen, base)
    if output.low_rank is not None:
        up, down, scale = _tensor(output.low_rank.up), _tensor(output.low_rank.down), output.low_rank.scale
        left, right = (down[:, chosen].T, up.T) if output.transposed else (up[chosen], down)
        base, spread = base + scale * (left @ right), spread + abs(scale) * (left.abs() @ right.abs())
        if output.low_rank.magnitude is not None:
            magnitude = _tensor(output.low_rank.magnitude).reshape(-1)
            if output.transposed:
                factor = row_factor(magnitude, _column_lengths(output, up, down, dequantized))
            else:
                factor = row_factor(magnitude[chosen], base.norm(dim=1))[:, None]
            base, spread = base * factor, spread * factor.abs() * 4
    if output.bias is not None and output.bias.bias is not None:
        added = _tensor(output.bias.bias)[chosen] * output.bias.scale
        base, spread = base + added, spread + added.abs()
    if output.tokens is not None:
        trained = _tensor(output.tokens.rows)
        position_of = {index: position for position, index in enumerate(output.tokens.indices)}
        for number, row in enumerate(chosen):
            if row in position_of:
                base[number] = trained[position_of[row]]
    return base, spread


def _exact_expert_rows(
    output: Output, low_rank: LowRank, part: StackPart, chosen: list[int], base: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_exact_rows`, for a tensor of routed experts: each row's expert is found, and its factors by PEFT's rule."""
    stack = low_rank.stack
    assert stack is not None
    up, down = _tensor(low_rank.up), _tensor(low_rank.down)
    rank = len(down) // stack.experts
    height = output.shape[0] // (stack.experts if part.expert is None else 1)
    sums, spread = base.clone(), base.abs()
    for number, row in enumerate(chosen):
        expert, inner = row // height if part.expert is None else part.expert, part.begin + row % height
        outer, inner_factor = up[:, expert :: stack.experts], down[expert * rank : (expert + 1) * rank]
        by_input = stack.transposed != part.flipped  # the file's rows are the experts' inputs
        left, right = (inner_factor.T, outer.T) if by_input else (outer, inner_factor)
        sums[number] += low_rank.scale * (left[inner] @ right)
        spread[number] += abs(low_rank.scale) * (left[inner].abs() @ right.abs())
    return sums, spread


def _tensor(stored: Stored) -> torch.Tensor:
    with open_stored(stored) as handle:
        return read_rows(handle, stored).double()


def _column_lengths(
    output: Output, up: torch.Tensor, down: torch.Tensor, dequantized: DequantizedValues | None
) -> torch.Tensor:
    """The length of each output's weights after the update, in fp64, for a transposed DoRA layer."""
    scale = 0.0 if output.low_rank is None else output.low_rank.scale
    squares = torch.zeros(output.shape[1], dtype=torch.float64)
    with open_stored(output.source) as handle:
        for begin, end in _blocks(output.source):
            rows = read_rows(handle, output.source, begin, end)
            base = (rows if dequantized is None else dequantized.nearest(rows, begin)).double()
            squares += (base + scale * (up @ down[:, begin:end]).T).square().sum(0)
    return squares.sqrt()
