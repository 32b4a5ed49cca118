"""python benchmarks/processes.py --data ../shared/data [--rounds 5]: one process and two, joined by gloo, on one CPU.

The same batches of four rows: one process takes all four with one thread, two take two each with one thread each, as
`accelerate launch --config_file recipes/accelerate/cpu.yaml` starts them. Tokens per second of all processes together,
from the second step on, in alternating runs. Correctness check: in float32 both have the same losses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import HERE, Figure, environment, machine, own_dtype, parser_for, save_figures, spread
from shapes import make_model, make_rows
from tqdm import tqdm
from train import write_rows

ROWS, BATCH, STEPS = 80, 4, 2
WITHIN = 1e-4
TOGETHER = HERE.parent / "recipes" / "accelerate" / "cpu.yaml"


def run(folder: Path, processes: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The report of each process."""
    launch = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", f"--num_processes={processes}"]
    launch += [f"--config_file={TOGETHER}"] if processes > 1 else ["--cpu"]
    rows, size = str(folder / "rows.jsonl"), str(BATCH // processes)
    command = [*launch, str(HERE / "train_arm.py"), "ours", str(folder), rows, str(STEPS), size, json.dumps(options)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(threads=1), check=False)
    reports = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('{"arm"')]
    if result.returncode or len(reports) != processes:
        sys.exit(f"{processes} processes failed:\n{result.stderr[-2000:]}")
    return reports


def tokens_per_second(reports: list[dict[str, Any]]) -> float:
    """Of all processes together; a step lasts as long as the slowest takes."""
    tokens = sum(sum(report["step_tokens"][1:]) for report in reports)
    return tokens / max(sum(report["step_seconds"][1:]) for report in reports)


def main() -> None:
    arguments = parser_for(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(arguments.shape, arguments.data, Path(temporary))
        write_rows(folder, "rows.jsonl", make_rows(arguments.data, ROWS))
        exact = {"dtype": "float32", "dropout": 0.0}
        losses = [max(report["losses"] for report in run(folder, processes, exact)) for processes in (1, 2)]
        difference = max(abs(a - b) / a for a, b in zip(*losses, strict=True))
        print(f"correctness check, float32: loss difference {difference:.1e} over {STEPS} steps")
        if not difference <= WITHIN:
            sys.exit("the correctness check failed: two processes train something else than one")
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for processes in tqdm([count for _ in range(arguments.rounds) for count in speeds], desc="runs"):
            reports = run(folder, processes, {"dtype": own_dtype(arguments.dtype)})
            speeds[processes].append(tokens_per_second(reports))
    print(f"{machine()}\n{arguments.shape}, {own_dtype(arguments.dtype)}, one thread a process")
    for processes, own in speeds.items():
        print(f"{processes} processes: {spread(own)} tokens/s")
    ratios = tuple(two / single for single, two in zip(speeds[1], speeds[2], strict=True))
    name, check = f"two processes against one, {arguments.shape}", f"loss difference {difference:.1e}"
    figure = Figure(name, ratios, "times", target="", correctness_check=check)
    save_figures(f"processes_{arguments.shape}", [figure])
    print(f"{spread(ratios, 2)} times as fast")


if __name__ == "__main__":
    main()
