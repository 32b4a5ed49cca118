"""Dequantized values of a weight, block by block: the values that a QLoRA adapter was trained on.

bitsandbytes quantizes blocks of 64 numbers. With double quantization it also quantizes the blocks' largest values,
around their mean over the whole weight. So the weight is read once for these. Then blocks of rows are quantized and
dequantized separately, with the same functions, bit-identical to the loaded model. Source: bitsandbytes.functional.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.merge.fold.merge_plan import Output, Quantized
from lora_med.models.files.weight_files import Stored, torch_dtype

NUMBERS = 64  # in a block of 4-bit quantization
READ_NUMBERS = 1 << 20


@dataclass(frozen=True)
class FourBit:
    """4-bit values of rows that are whole numbers of blocks; `largest`: the blocks' largest values as stored, fp32."""

    how: Quantized
    largest: torch.Tensor
    width: int

    def nearest(self, rows: torch.Tensor, begin: int) -> torch.Tensor:
        """The dequantized values of `rows`, which begin at row `begin`."""
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        rows = rows.to(getattr(torch, self.how.dtype)).contiguous()
        packed, state = quantize_4bit(
            rows, blocksize=NUMBERS, compress_statistics=False, quant_type=self.how.quant_type
        )
        first = begin * self.width // NUMBERS
        state.absmax = self.largest[first : first + rows.numel() // NUMBERS].contiguous()
        return dequantize_4bit(packed, state)


@dataclass(frozen=True)
class EightBit:
    """8-bit values: each row has a scale of its own."""

    how: Quantized

    def nearest(self, rows: torch.Tensor, begin: int) -> torch.Tensor:
        """The dequantized values of `rows`; where they begin does not matter."""
        from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

        codes, scales, _ = int8_vectorwise_quant(rows.to(getattr(torch, self.how.dtype)).to(torch.float16).contiguous())
        return int8_vectorwise_dequant(codes, scales.float())


@dataclass(frozen=True)
class AllValues:
    """All values of a weight whose blocks do not follow its rows: it is stored transposed, or has an odd width."""

    values: torch.Tensor

    def nearest(self, rows: torch.Tensor, begin: int) -> torch.Tensor:
        """The dequantized values of as many rows from `begin`."""
        return self.values[begin : begin + len(rows)]


def dequantized_values_of(output: Output, source: int) -> FourBit | EightBit | AllValues:
    """The dequantized values of an output, as `output.quantized` describes; `source` is its open file.

    Memory is a 64th of the weight in fp32, but the whole weight where it is stored transposed or has an odd width.
    """
    how = output.quantized
    assert how is not None
    if how.transposed or (how.bits == 4 and output.shape[1] % NUMBERS):
        weight = torch.cat(list(_rows(source, output.source)))
        values = _at_once(weight.T.contiguous() if how.transposed else weight, how)
        return AllValues(values.T.contiguous() if how.transposed else values)
    if how.bits == 8:
        return EightBit(how)
    return FourBit(how, _largest(source, output.source, how), output.shape[1])


def _rows(source: int, stored: Stored) -> Iterator[torch.Tensor]:
    row = stored.size // stored.shape[0]
    step = max(1, READ_NUMBERS // max(1, stored.shape[1]))
    for begin in range(0, stored.shape[0], step):
        data = bytearray(os.pread(source, min(step, stored.shape[0] - begin) * row, stored.start + begin * row))
        yield torch.frombuffer(data, dtype=torch_dtype(stored.dtype)).view(-1, stored.shape[1])


def _at_once(weight: torch.Tensor, how: Quantized) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    if how.bits == 8:
        return EightBit(how).nearest(weight, 0)
    packed, state = quantize_4bit(
        weight.to(getattr(torch, how.dtype)),
        blocksize=NUMBERS,
        compress_statistics=how.double_quant,
        quant_type=how.quant_type,
    )
    return dequantize_4bit(packed, state).float()


def _largest(source: int, stored: Stored, how: Quantized) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_blockwise, quantize_blockwise

    parts: list[Any] = []
    for rows in _rows(source, stored):
        parts.append(rows.to(getattr(torch, how.dtype)).view(-1, NUMBERS).abs().amax(1).float())
    largest = torch.cat(parts)
    if not how.double_quant:
        return largest
    offset = largest.mean()
    codes, state = quantize_blockwise(largest - offset, blocksize=256)
    return dequantize_blockwise(codes, state).add_(offset).float()
