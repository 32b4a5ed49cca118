"""python benchmarks/attention.py [--rounds 5]: attention's forward and backward pass, by torch and by matrix products.

Milliseconds of both for four documents of one length, with the heads of the 135 M shape. The format is the one this CPU
multiplies fastest. lora_med uses the matrix products on CPUs with instructions for bfloat16 (AMX, AVX512-BF16).
Correctness check: the cosine of the gradients.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from measure import Figure, machine, own_dtype, parser_for, save_figures, spread

from lora_med.models.attention import block_attention
from lora_med.models.precision import bfloat16_instructions

HEADS, KEY_HEADS, SIZE, DOCUMENTS = 9, 3, 64, 4
COSINE_ABOVE = 0.999
Attend = Callable[..., torch.Tensor]


def gradients(attend: Attend, tensors: list[torch.Tensor]) -> torch.Tensor:
    """The gradients of query, key and value, as one row of numbers."""
    inputs = [tensor.detach().requires_grad_() for tensor in tensors]
    output = attend(*inputs)
    output.backward(torch.ones_like(output) + output.detach())
    return torch.cat([tensor.grad.flatten() for tensor in inputs])  # type: ignore[union-attr]


def main() -> None:
    arguments = parser_for(__doc__, data=False).parse_args()
    dtype = getattr(torch, own_dtype(arguments.dtype))
    print(f"{machine()}\n{dtype}, {torch.get_num_threads()} threads; used here: {bool(bfloat16_instructions())}")
    print("| tokens a document | torch ms | matrix products ms | times as fast |\n|---|---|---|---|")
    figures = []
    for length in (250, 500, 1000):
        lengths = [(length,)] * DOCUMENTS
        shapes = [(1, length * DOCUMENTS, heads, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
        tensors = [torch.randn(shape).to(dtype).transpose(1, 2) for shape in shapes]

        def torchs(*inputs: torch.Tensor, length: int = length) -> torch.Tensor:
            attend = functools.partial(
                torch.nn.functional.scaled_dot_product_attention, is_causal=True, enable_gqa=True
            )
            documents = zip(*(tensor.split(length, 2) for tensor in inputs), strict=True)
            return torch.cat([attend(*document) for document in documents], 2)

        def ours(*inputs: torch.Tensor, lengths: Any = lengths) -> torch.Tensor:
            return block_attention.attend(*inputs, lengths)

        expected, actual = (gradients(attend, tensors) for attend in (torchs, ours))
        cosine = float(torch.nn.functional.cosine_similarity(expected.double(), actual.double(), dim=0))
        if not cosine >= COSINE_ABOVE:
            raise SystemExit(f"the correctness check failed: the cosine of the gradients is {cosine:.6f}")
        taken: list[list[float]] = [[], []]
        for _ in range(arguments.rounds * 4):
            for arm, attend in enumerate((torchs, ours)):
                started = time.perf_counter()
                gradients(attend, tensors)
                taken[arm].append((time.perf_counter() - started) * 1000)
        ratios = tuple(a / b for a, b in zip(*taken, strict=True))
        print(f"| {length} | {spread(taken[0], 1)} | {spread(taken[1], 1)} | {statistics.median(ratios):.2f} |")
        name = f"attention by matrix products against torch, {length} tokens"
        figures.append(Figure(name, ratios, "times", "more than 1 in bfloat16", f"cosine {cosine:.6f}"))
    save_figures("attention", figures)


if __name__ == "__main__":
    main()
