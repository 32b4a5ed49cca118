"""python benchmarks/upper_layers.py --data ../shared/data [--rounds 5]: adapters on the upper quarter of the layers.

What the layers below the adapters give for a row is the same in every epoch, and with train.cache_frozen it is computed
in the first alone. Tokens per second of the second epoch, beside the same without keeping anything, and beside adapters
on all layers; each arm a process of its own, by turns. Gate: in float32 the adapters trained with and without keeping
are the same.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import Figure, keep, machine, own_dtype, parser_for, run_arm, spread
from shapes import SHAPES, make_model, make_rows
from tqdm import tqdm
from train import BATCH, write_rows

ROWS, STEPS = 8, 4  # two epochs of two steps
WITHIN = 1e-3


def second_epoch(report: dict[str, Any]) -> float:
    """Tokens per second of the steps after the first epoch."""
    begin = ROWS // BATCH
    return sum(report["step_tokens"][begin:]) / sum(report["step_seconds"][begin:])


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Distance of two adapters beside the length of one."""
    first, second = (torch.cat([adapter[name].flatten() for name in sorted(adapter)]) for adapter in (one, other))
    return float((first - second).norm() / first.norm())


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    asked = parser.parse_args()
    layers = SHAPES[asked.shape]["num_hidden_layers"]
    upper = list(range(layers - -(-layers // 4), layers))
    arms: dict[str, dict[str, Any]] = {
        "upper quarter, kept": {"layers": upper, "cache_frozen": True},
        "upper quarter": {"layers": upper},
        "all layers": {},
    }
    with tempfile.TemporaryDirectory() as place:
        folder = make_model(asked.shape, asked.data, Path(place))
        rows = write_rows(folder, "rows.jsonl", make_rows(asked.data, ROWS))

        def run(options: dict[str, Any]) -> dict[str, Any]:
            told = json.dumps({"dtype": own_dtype(asked.dtype), **options})
            given = ["ours", str(folder), str(rows), str(STEPS), str(BATCH), told]
            return run_arm("train_arm.py", given, threads=asked.threads)

        adapters = []
        for number, arm in enumerate(("upper quarter, kept", "upper quarter")):
            file = folder / f"{number}.pt"
            run({**arms[arm], "dtype": "float32", "dropout": 0.0, "save": str(file)})
            adapters.append(torch.load(file, weights_only=True))
        gate = f"adapters {apart(*adapters):.1e} apart"
        print(f"gate, float32: {gate}")
        if not apart(*adapters) <= WITHIN:
            raise SystemExit("the gate is not passed: what is kept is not what is computed")
        found: dict[str, list[float]] = {arm: [] for arm in arms}
        for arm in tqdm([arm for _ in range(asked.rounds) for arm in arms], desc="arms"):
            found[arm].append(second_epoch(run(arms[arm])))
    print(f"{machine()}\n{len(upper)} of {layers} layers, {asked.threads} threads, {own_dtype(asked.dtype)}")
    first = found["upper quarter, kept"]
    print("| arm | tokens/s of the second epoch, median (range) | kept is |\n|---|---|---|")
    for arm, speeds in found.items():
        ratios = [a / b for a, b in zip(first, speeds, strict=True)]
        print(f"| {arm} | {spread(speeds)} | {spread(ratios, 2)} x |")
    figures = []
    for arm, reach in (("all layers", "at least 2.5"), ("upper quarter", "")):
        ratios = tuple(a / b for a, b in zip(first, found[arm], strict=True))
        told = "not kept" if arm == "upper quarter" else arm
        name = f"upper quarter kept, {asked.shape}, second epoch, against {told}"
        figures.append(Figure(name, ratios, "times", reach, gate))
    keep(f"upper_layers_{asked.shape}", figures)


if __name__ == "__main__":
    main()
