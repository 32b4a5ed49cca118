"""python benchmarks/busy_machine.py [--rounds 5] [--spins 100 1000]: training speed, quiet and beside one busy core.

OpenMP's threads spin while they wait for each other. Beside another process that computes, the spinning takes the core
from the thread that the others wait for. Each round trains the quickstart's questions once for every way to wait, quiet
and beside a process that computes in plain Python, in alternating order. The speed is the median of the run's own
tokens_per_second after the first log. All runs must end with the same loss, or the comparison is void.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from measure import Figure, environment, parser_for, save_figures, spread

AS_IS, PASSIVE = "as OpenMP does", "OMP_WAIT_POLICY=PASSIVE"
STEPS = 30
BUSY = "while True: sum(range(1000))"
TRAIN = """
import os, sys
for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
    if not os.environ.get(name): os.environ.pop(name, None)
import lora_med, torch
settings = lora_med.parse("quickstart_pubmedqa", sys.argv[1:])
lora_med.train(settings)
"""


def train(way: dict[str, str], *, busy: bool) -> tuple[float, float]:
    """Tokens per second and the last loss of one run of STEPS steps."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"train.max_steps={STEPS}", f"train.output_dir={folder}/run", f"adapter.store={folder}/store"]
        beside = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
        try:
            subprocess.run(
                [sys.executable, "-c", TRAIN, *overrides],
                env=environment(os.cpu_count() or 1, **way),
                check=True,
                capture_output=True,
            )
        finally:
            if beside is not None:
                beside.kill()
                beside.wait()
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    logs = [line for line in lines if "tokens_per_second" in line]
    return median(line["tokens_per_second"] for line in logs[1:]), logs[-1]["loss"]


def ways(spins: list[int]) -> dict[str, dict[str, str]]:
    """Each way to wait, with its environment; an empty value leaves the variable unset."""
    own = {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": ""}
    counted = {f"GOMP_SPINCOUNT={spin}": own | {"GOMP_SPINCOUNT": str(spin)} for spin in spins}
    return {AS_IS: own, PASSIVE: own | {"OMP_WAIT_POLICY": "PASSIVE"}, **counted}


def main() -> None:
    parser = parser_for(__doc__, data=False)
    parser.add_argument("--spins", type=int, nargs="+", default=[100, 300, 1000])
    options = parser.parse_args()
    environments = ways(options.spins)
    speeds: dict[tuple[str, bool], list[float]] = {(name, busy): [] for busy in (False, True) for name in environments}
    losses: set[float] = set()
    for number in range(options.rounds):
        for name, busy in list(speeds)[:: 1 if number % 2 == 0 else -1]:
            speed, loss = train(environments[name], busy=busy)
            speeds[name, busy].append(speed)
            losses.add(round(loss, 4))
            print(f"round {number + 1}: {name}, {'busy' if busy else 'quiet'}: {speed:,.0f} tokens/s", flush=True)
    quiet = median(speeds[AS_IS, False])
    losses_text = f"last losses {', '.join(map(str, sorted(losses)))}"
    print(f"\n{losses_text}\n")
    print("| threads wait by | quiet, tokens/s | of OpenMP's quiet | busy, tokens/s | of OpenMP's quiet |")
    print("|---|---|---|---|---|")
    figures = []
    for name in environments:
        rest, beside = speeds[name, False], speeds[name, True]
        shares = f"{median(rest) / quiet:.2f}", f"{median(beside) / quiet:.2f}"
        print(f"| {name} | {spread(rest)} | {shares[0]} | {spread(beside)} | {shares[1]} |")
        for state, values in (("quiet", rest), ("busy", beside)):
            shares_of = tuple(value / quiet for value in values)
            figures.append(Figure(f"{name}, {state}, against OpenMP's own, quiet", shares_of, "times", "", losses_text))
    save_figures("busy_machine", figures)


if __name__ == "__main__":
    main()
