"""python benchmarks/upper_layers.py --data ../shared/data [--rounds 5]: adapters on the upper quarter of the layers.

The output of the layers below the adapters is the same for a row in every epoch. With train.cache_frozen it is computed
in the first epoch and cached. Measures tokens per second of the second epoch, and compares them with the same run
without the cache, and with adapters on all layers. Each arm is a process of its own, in alternating runs. Correctness
check: in float32 the adapters trained with and without the cache are the same.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import Figure, machine, own_dtype, parser_for, run_arm, save_figures, spread
from shapes import SHAPES, make_model, make_rows
from tqdm import tqdm
from train import BATCH, write_rows

ROWS, STEPS = 8, 4  # two epochs of two steps
WITHIN = 1e-3


def second_epoch(report: dict[str, Any]) -> float:
    """Tokens per second of the steps after the first epoch."""
    begin = ROWS // BATCH
    return sum(report["step_tokens"][begin:]) / sum(report["step_seconds"][begin:])


def relative_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The distance of two adapters, relative to the length of the first."""
    expected, actual = (torch.cat([adapter[name].flatten() for name in sorted(adapter)]) for adapter in (first, second))
    return float((expected - actual).norm() / expected.norm())


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    arguments = parser.parse_args()
    layers = SHAPES[arguments.shape]["num_hidden_layers"]
    upper = list(range(layers - -(-layers // 4), layers))
    arms: dict[str, dict[str, Any]] = {
        "upper quarter, cached": {"layers": upper, "cache_frozen": True},
        "upper quarter": {"layers": upper},
        "all layers": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(arguments.shape, arguments.data, Path(temporary))
        rows = write_rows(folder, "rows.jsonl", make_rows(arguments.data, ROWS))

        def run(options: dict[str, Any]) -> dict[str, Any]:
            settings = json.dumps({"dtype": own_dtype(arguments.dtype), **options})
            command = ["ours", str(folder), str(rows), str(STEPS), str(BATCH), settings]
            return run_arm("train_arm.py", command, threads=arguments.threads)

        adapters = []
        for number, arm in enumerate(("upper quarter, cached", "upper quarter")):
            file = folder / f"{number}.pt"
            run({**arms[arm], "dtype": "float32", "dropout": 0.0, "save": str(file)})
            adapters.append(torch.load(file, weights_only=True))
        difference = relative_difference(*adapters)
        check = f"adapter difference {difference:.1e}"
        print(f"correctness check, float32: {check}")
        if not difference <= WITHIN:
            raise SystemExit("the correctness check failed: the cache does not hold what is computed")
        speeds: dict[str, list[float]] = {arm: [] for arm in arms}
        for arm in tqdm([arm for _ in range(arguments.rounds) for arm in arms], desc="arms"):
            speeds[arm].append(second_epoch(run(arms[arm])))
    print(f"{machine()}\n{len(upper)} of {layers} layers, {arguments.threads} threads, {own_dtype(arguments.dtype)}")
    first = speeds["upper quarter, cached"]
    print("| arm | tokens/s of the second epoch, median (range) | cached is |\n|---|---|---|")
    for arm, own in speeds.items():
        ratios = [a / b for a, b in zip(first, own, strict=True)]
        print(f"| {arm} | {spread(own)} | {spread(ratios, 2)} x |")
    figures = []
    for arm, target in (("all layers", "at least 2.5"), ("upper quarter", "")):
        ratios = tuple(a / b for a, b in zip(first, speeds[arm], strict=True))
        other = "not cached" if arm == "upper quarter" else arm
        name = f"upper quarter cached, {arguments.shape}, second epoch, against {other}"
        figures.append(Figure(name, ratios, "times", target, check))
    save_figures(f"upper_layers_{arguments.shape}", figures)


if __name__ == "__main__":
    main()
