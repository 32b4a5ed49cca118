"""python benchmarks/processes.py --data ../shared/data [--rounds 5]: one process and two, joined by gloo, on one CPU.

The same batches of four rows: one process takes all four with one thread, two take two each with one thread each, as
`accelerate launch --config_file recipes/accelerate/cpu.yaml` starts them. Tokens per second of all processes together,
from the second step on, by turns. Gate: in float32 the losses of both are the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import HERE, Figure, environment, keep, machine, own_dtype, parser_for, spread
from shapes import make_model, make_rows
from tqdm import tqdm
from train import write_rows

ROWS, BATCH, STEPS = 80, 4, 2
WITHIN = 1e-4
TOGETHER = HERE.parent / "recipes" / "accelerate" / "cpu.yaml"


def run(folder: Path, processes: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    """What each process reports."""
    launch = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", f"--num_processes={processes}"]
    launch += [f"--config_file={TOGETHER}"] if processes > 1 else ["--cpu"]
    rows, size = str(folder / "rows.jsonl"), str(BATCH // processes)
    command = [*launch, str(HERE / "train_arm.py"), "ours", str(folder), rows, str(STEPS), size, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(threads=1), check=False)
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"arm"')]
    if done.returncode or len(reports) != processes:
        sys.exit(f"{processes} processes failed:\n{done.stderr[-2000:]}")
    return reports


def tokens_per_second(reports: list[dict[str, Any]]) -> float:
    """Of all processes together; a step lasts as long as the slowest takes."""
    tokens = sum(sum(one["step_tokens"][1:]) for one in reports)
    return tokens / max(sum(one["step_seconds"][1:]) for one in reports)


def main() -> None:
    asked = parser_for(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = make_model(asked.shape, asked.data, Path(place))
        write_rows(folder, "rows.jsonl", make_rows(asked.data, ROWS))
        exact = {"dtype": "float32", "dropout": 0.0}
        losses = [max(one["losses"] for one in run(folder, processes, exact)) for processes in (1, 2)]
        apart = max(abs(a - b) / a for a, b in zip(*losses, strict=True))
        print(f"gate, float32: losses {apart:.1e} apart over {STEPS} steps")
        if not apart <= WITHIN:
            sys.exit("the gate is not passed: two processes train something else than one")
        found: dict[int, list[float]] = {1: [], 2: []}
        for processes in tqdm([count for _ in range(asked.rounds) for count in found], desc="runs"):
            reports = run(folder, processes, {"dtype": own_dtype(asked.dtype)})
            found[processes].append(tokens_per_second(reports))
    print(f"{machine()}\n{asked.shape}, {own_dtype(asked.dtype)}, one thread a process")
    for processes, speeds in found.items():
        print(f"{processes} processes: {spread(speeds)} tokens/s")
    ratios = tuple(two / one for one, two in zip(found[1], found[2], strict=True))
    figure = Figure(f"two processes against one, {asked.shape}", ratios, "times", "", f"losses {apart:.1e} apart")
    keep(f"processes_{asked.shape}", [figure])
    print(f"{spread(ratios, 2)} times as fast")


if __name__ == "__main__":
    main()
