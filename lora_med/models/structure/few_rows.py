"""Linear layers for a few rows in float32 on AMD's processors, by the faster of two equal matrix products.

Torch multiplies float32 with Intel's MKL, whose product of few rows is slow there. For all layers of SmolLM2, on one
thread of an EPYC with AVX-512, the same product with the operands swapped took 0.77 of the CPU time for one row, 0.41
for two, 0.80 for four and 0.97 for eight (benchmarks/few_row_products.py). 8 streams of the engine on two threads were
1.14 times as fast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

# The swapped product holds the rows in the first-level cache; beyond so many numbers it is no faster.
MOST_NUMBERS = 4608
MOST_INPUTS = 1024  # of a single row, which is multiplied as two


def swaps(rows: int, inputs: int, outputs: int) -> bool:
    """Whether the swapped product of (rows, inputs) with a weight (outputs, inputs) is the faster one."""
    if rows == 2:
        return True
    return inputs <= outputs and (inputs <= MOST_INPUTS if rows == 1 else rows * inputs <= MOST_NUMBERS)


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x` (..., inputs) times `weight` (outputs, inputs), plus `bias` (outputs,); torch's linear, but for rounding."""
    outputs, inputs = weight.shape
    rows = x.numel() // inputs
    if not swaps(rows, inputs, outputs):
        return torch.nn.functional.linear(x, weight, bias)
    flat = x.reshape(rows, inputs).contiguous()
    if rows == 1:
        flat = torch.cat((flat, flat))
    # Both are contiguous: a transposed input is multiplied slowly, here and in the next layer.
    result = torch.mm(weight, flat.t()).t()[:rows].contiguous()
    if bias is not None:
        result += bias
    return result.view(*x.shape[:-1], outputs)


@contextlib.contextmanager
def few_rows(model: torch.nn.Module) -> Iterator[None]:
    """Let the linear layers of `model` that are stored in float32 on an AMD processor take the faster product.

    For inference only. Quantized layers, and layers that another library has given a forward of its own, stay as they
    are.
    """
    layers: list[Any] = [module for module in model.modules() if _is_plain(module)] if is_amd() else []
    for layer in layers:
        layer.forward = partial(product, weight=layer.weight, bias=layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(module: torch.nn.Module) -> bool:
    if type(module) is not torch.nn.Linear or "forward" in vars(module):
        return False
    return module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"


@cache
def is_amd() -> bool:
    """Whether this machine's processor is AMD's, by what the kernel says."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
