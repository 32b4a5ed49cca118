"""One block of rows of one merged weight: read, summed in fp32, rounded once, in reused buffers."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from lora_med.adapters.tensors.expert_update import ExpertUpdate, ExpertUpdates
from lora_med.adapters.tensors.weight_update import WeightUpdate, load_update, row_factor
from lora_med.errors import IntegrityError
from lora_med.merge.fold.merge_plan import Output
from lora_med.models.files.weight_files import FLOATS, is_finite, open_stored, read_rows, torch_dtype

BLOCK_NUMBERS = 1 << 20  # weights that one worker reads and writes at a time
PIECE_NUMBERS = 1 << 19  # and folds at a time, in fp32: smaller is bound by the interpreter, larger exceeds the caches


class DequantizedValues(Protocol):
    """The dequantized values that replace a weight's own values."""

    def nearest(self, rows: torch.Tensor, begin: int) -> torch.Tensor:
        """The values for `rows`, which begin at row `begin` of the weight."""
        ...


@dataclass(frozen=True)
class Folding:
    """A tensor of the merged model, with all that is added to it in memory.

    `factor`, of shape (outputs), is DoRA's; it is None until computed.
    """

    output: Output
    update: WeightUpdate | ExpertUpdate | None
    bias: torch.Tensor | None
    tokens: torch.Tensor | None
    dequantized: DequantizedValues | None = None
    factor: torch.Tensor | None = None


class Scratch(threading.local):
    """Buffers of one worker, allocated at first use, and enlarged when a row is longer than a block."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A buffer of that shape, with undefined contents."""
        count = dtype.itemsize
        for edge in shape:
            count *= edge
        held = self._buffers.get(name)
        if held is None or held.numel() < count:
            held = self._buffers[name] = torch.empty(count, dtype=torch.uint8)
        return held[:count].view(dtype).view(shape)


def load(output: Output, experts: ExpertUpdates) -> Folding:
    """The folding of an output, with its small matrices in memory; `experts` keeps those of the stack read last.

    Raises:
        IntegrityError: a value of the adapter is not finite.
    """
    update: WeightUpdate | ExpertUpdate | None = None
    if output.low_rank is not None and output.experts is not None:
        update = experts.of(output.low_rank, output.experts, output.shape[0])
    elif output.low_rank is not None:
        update = load_update(output.low_rank, transposed=output.transposed)
    bias = tokens = None
    if output.bias is not None and output.bias.bias is not None:
        with open_stored(output.bias.bias) as handle:
            bias = read_rows(handle, output.bias.bias).float() * output.bias.scale
    if output.tokens is not None:
        with open_stored(output.tokens.rows) as handle:
            tokens = read_rows(handle, output.tokens.rows).float()
    return Folding(output, update, bias, tokens)


def blocks(output: Output) -> Iterator[tuple[int, int]]:
    """`(begin, end)` of each block of rows that is read and written at a time."""
    return _cut(0, output.shape[0], output, BLOCK_NUMBERS)


def _cut(begin: int, end: int, output: Output, numbers: int) -> Iterator[tuple[int, int]]:
    step = max(1, numbers * output.shape[0] // max(1, math.prod(output.shape)))
    for first in range(begin, end, step):
        yield first, min(end, first + step)


def _pieces(
    source: int, folding: Folding, begin: int, end: int, scratch: Scratch
) -> Iterator[tuple[int, torch.Tensor]]:
    """Rows in fp32 (fp64 if stored so) with the update added, a few at a time, each with its first row's number."""
    stored = folding.output.source
    dtype = torch_dtype(stored.dtype)
    raw = scratch.take("raw", (end - begin, *stored.shape[1:]), dtype)
    in_base = max(0, min(end, stored.shape[0]) - begin)
    raw[in_base:] = 0  # rows of new tokens, which are all trained
    view = memoryview(raw[:in_base].reshape(-1).view(torch.uint8).numpy().data)
    if os.preadv(source, [view], stored.start + begin * (stored.size // stored.shape[0])) != len(view):
        raise IntegrityError("the file ends inside a tensor", where=str(stored.file), fix="copy or download it again")
    for first, last in _cut(begin, end, folding.output, PIECE_NUMBERS):
        some = raw[first - begin : last - begin]
        wide = scratch.take("wide", tuple(some.shape), torch.float64 if dtype == torch.float64 else torch.float32)
        wide.copy_(some if folding.dequantized is None else folding.dequantized.nearest(some, first))
        if folding.update is not None:
            wide.add_(folding.update.rows(first, last, scratch.take("delta", tuple(some.shape), torch.float32)))
        yield first, wide


def squares(source: int, folding: Folding, begin: int, end: int, scratch: Scratch) -> torch.Tensor:
    """Sums of squares over these rows after the update: of each row or, if transposed, of each column."""
    with torch.inference_mode():
        if folding.output.transposed:
            return torch.stack(
                [rows.square_().sum(0) for _, rows in _pieces(source, folding, begin, end, scratch)]
            ).sum(0)
        return torch.cat([rows.square_().sum(1) for _, rows in _pieces(source, folding, begin, end, scratch)])


def with_factor(folding: Folding, lengths: torch.Tensor) -> Folding:
    """The folding that also sets the length of each output's weights to the magnitude the adapter learned (DoRA)."""
    assert folding.update is not None
    return replace(folding, factor=row_factor(folding.update.magnitude, lengths))


def folded(source: int, folding: Folding, begin: int, end: int, dtype: str, scratch: Scratch) -> torch.Tensor:
    """Rows `begin` to `end` of the merged tensor in safetensors' `dtype`, in a buffer that the next call reuses.

    Raises:
        IntegrityError: a merged value is not finite; for float16 that can be a weight over 65504.
    """
    merged = scratch.take("merged", (end - begin, *folding.output.shape[1:]), torch_dtype(dtype))
    for first, rows in _pieces(source, folding, begin, end, scratch):
        last = first + len(rows)
        if folding.factor is not None:
            rows.mul_(folding.factor if folding.output.transposed else folding.factor[first:last, None])
        if folding.bias is not None:
            rows.add_(folding.bias[first:last])
        if folding.tokens is not None and folding.output.tokens is not None:
            for position, index in enumerate(folding.output.tokens.indices):
                if first <= index < last:
                    rows[index - first] = folding.tokens[position]
        rounded = merged[first - begin : last - begin].copy_(rows)
        if not is_finite(rounded):
            raise IntegrityError(
                f"a value of {folding.output.name!r} is not finite in {dtype}",
                where=str(folding.output.source.file),
                fix="lora-med adapters verify NAME; or merge with --dtype float32",
            )
    return merged


def touches(output: Output, dtype: str | None) -> bool:
    """Whether an output's bytes are computed rather than copied; `dtype` is that of the result, or None."""
    if 0 in output.shape:
        return False
    differs = output.source.dtype != final_dtype(output, dtype)
    return bool(output.low_rank or output.tokens or output.bias or output.quantized or differs)


def final_dtype(output: Output, dtype: str | None) -> str:
    """The dtype an output is written in: the requested one for a matrix or vector of floats, else its own."""
    return dtype if dtype is not None and output.dtype in FLOATS and output.shape else output.dtype
