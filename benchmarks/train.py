"""python benchmarks/train.py --data ../shared/data [--shape 135m] [--rounds 5] [--arms ours trl-best trl]

Tokens per second and peak memory of LoRA training on a CPU beside TRL: PubMedQA's prompts and answers, r=16 on all
linear layers, batches of 4. Each arm is a process of its own, by turns; padding never counts as a token. `ours` is
lora_med as its recipes call it, `ours-4bit` on the base in NF4; `trl` is what `trl sft` sets, `trl-best` TRL with
weights in bfloat16, no checkpointing and batches of like length. Before it, a gate: on one batch the loss and gradient
must be TRL's. And a bound: how fast the matrix products of the step alone could be on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shapes import SHAPES, make_model, make_rows
from tqdm import tqdm

ARM = Path(__file__).with_name("train_arm.py")
ARMS = ("ours", "ours-4bit", "trl-best", "trl")
LOSS_WITHIN, COSINE_ABOVE = 1e-4, 0.999
ROWS = 400


def run(arm: str, folder: Path, steps: int, options: dict[str, Any], threads: int) -> dict[str, Any]:
    """The JSON line that one arm prints."""
    command = [sys.executable, "-W", "ignore", str(ARM), arm, str(folder), str(folder / "rows.jsonl"), str(steps), "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, json.dumps(options)], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{arm} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    options = {"dtype": "bfloat16", "dropout": asked.dropout}
    with tempfile.TemporaryDirectory() as place:
        folder = make_model(asked.shape, asked.data, Path(place))
        lines = [json.dumps(row) for row in make_rows(asked.data, ROWS)]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        gate = run("gate", folder, 1, {"dtype": "float32", "dropout": 0.0}, asked.threads)
        print(f"gate, float32: loss apart {gate['loss_apart']:.1e}, gradient cosine {gate['cosine']:.6f}")
        if gate["loss_apart"] > LOSS_WITHIN or gate["cosine"] < COSINE_ABOVE:
            sys.exit("the gate is not passed: what follows would compare different things")
        bound = run("bound", folder, 1, options, asked.threads)
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in asked.arms}
        for arm in tqdm([arm for _ in range(asked.rounds) for arm in asked.arms], desc="arms"):
            found[arm].append(run(arm, folder, asked.steps, options, asked.threads))
            print(json.dumps(found[arm][-1]), file=sys.stderr)
    names = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    print(f"{platform.processor() or platform.machine()}, {asked.threads} threads, shape {asked.shape}; ", end="")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print(f"bound of the matrix products: {bound['tokens_per_second']:.0f} tokens/s at {bound['gflops']:.0f} GFLOP/s")
    first = asked.arms[0]
    base = statistics.median(one["tokens_per_second"] for one in found[first])
    print(
        "| arm | tokens/s, median (range) | " + first + " is | peak MiB | share of the bound |\n|---|---|---|---|---|"
    )
    for arm, rounds in found.items():
        speeds = [one["tokens_per_second"] for one in rounds]
        peak = statistics.median(one["peak_mb"] for one in rounds)
        share = statistics.median(speeds) / bound["tokens_per_second"]
        print(f"| {arm} | {spread(speeds)} | {base / statistics.median(speeds):.2f} x | {peak:.0f} | {share:.0%} |")
    if asked.out:
        asked.out.write_text(json.dumps({"gate": gate, "bound": bound, "arms": found}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
