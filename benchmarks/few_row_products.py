"""python benchmarks/few_row_products.py [--rounds 7] [--threads 1]: linear layers for one to eight rows in float32.

Two arms, alternating: torch's linear, and `lora_med.models.structure.few_rows.product`, which the engine uses on AMD's
processors. The layers are SmolLM2-135M's, each as often as a forward pass has it. Copies of the weights take turns, so
that they come from memory as they do there. The figure is CPU time of all layers.

Correctness check: the largest difference between the arms, as a share of the largest value.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from itertools import cycle

import torch
from measure import Figure, machine, parser_for, save_figures, spread

from lora_med.models.structure.few_rows import is_amd, product

LAYERS = ((576, 576, 60), (192, 576, 60), (1536, 576, 60), (576, 1536, 30), (49152, 576, 1))
COPIES_BYTES = 80_000_000
ROWS = (1, 2, 3, 4, 6, 8)
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cpu_ms(multiply: Product, x: torch.Tensor, weights: list[torch.Tensor], calls: int) -> float:
    """CPU milliseconds of a call, over so many calls."""
    ring = cycle(weights)
    started = time.process_time()
    for _ in range(calls):
        multiply(x, next(ring))
    return 1000 * (time.process_time() - started) / calls


def measure(rows: int, rounds: int) -> tuple[list[float], list[float], float]:
    """CPU milliseconds of all layers by either arm, round by round, and the largest relative difference."""
    plain, ours, differs = [0.0] * rounds, [0.0] * rounds, 0.0
    for outputs, inputs, times in LAYERS:
        weights = [torch.randn(outputs, inputs) for _ in range(max(2, COPIES_BYTES // (outputs * inputs * 4)))]
        x = torch.randn(rows, inputs)
        expected, given = torch.nn.functional.linear(x, weights[0]), product(x, weights[0])
        differs = max(differs, float((given - expected).abs().max() / expected.abs().max()))
        for turn in range(rounds):
            arms = [(torch.nn.functional.linear, plain), (product, ours)]
            for multiply, spent in arms if turn % 2 else reversed(arms):
                spent[turn] += times * cpu_ms(multiply, x, weights, max(4, len(weights)))
    return plain, ours, differs


def main() -> None:
    """Measure, print and save."""
    parser = parser_for(__doc__, data=False)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load, figures = os.getloadavg()[0], []
    for rows in ROWS:
        plain, ours, differs = measure(rows, options.rounds)
        shares = tuple(one / other for one, other in zip(ours, plain, strict=True))
        check = f"largest difference {differs:.1e}"
        print(
            f"{rows} rows: {spread(ours, 1)} against {spread(plain, 1)} ms of CPU, "
            f"{statistics.median(shares):.2f} times ({check})",
            flush=True,
        )
        figures.append(Figure(f"CPU of linear layers, {rows} rows", shares, "times", "at most 1", check))
    amd = "" if is_amd() else "; not AMD's, so the engine does not use it here"
    print(f"{options.threads} threads; load average {load:.1f} before; {machine()}{amd}")
    save_figures("few_row_products", figures)


if __name__ == "__main__":
    main()
