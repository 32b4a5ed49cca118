"""python benchmarks/launches.py: one recipe on 1, 2 and 4 processes, on one and two machines, plain and in shards.

Each run takes the same eight rows a step. Plain runs are real commands: `lora-med train --processes N`, and for two
machines two of them, joined over loopback, each with folders of its own. Runs in shards are FSDP2 on CPU processes,
forked and joined as in tests/training/fsdp_ranks.py. Correctness check: losses and adapter are those of one process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import HERE, machine, parser_for

ROWS, STEPS = 8, 6
RECIPE = ["data.max_records=60", f"train.max_steps={STEPS}", "train.logging_steps=1", "train.learning_rate=5e-4"]
RECIPE += ["lora.lora_dropout=0"]
NUMBERS = {
    "float32": ["model.load_in_4bit=false", "model.dtype=float32"],
    "4 bits": ["model.load_in_4bit=true", "model.dtype=float32"],
}
WITHIN = 5e-6


@dataclass(frozen=True)
class Plan:
    """`processes` in all, on `machines`, plain or in shards."""

    processes: int
    machines: int
    sharded: bool

    def __str__(self) -> str:
        kind = "shards" if self.sharded else "plain"
        return f"{self.processes} | {self.machines} | {kind}"


PLANS = [Plan(processes, machines, False) for processes, machines in ((1, 1), (2, 1), (4, 1), (2, 2), (4, 2))]
PLANS += [Plan(processes, machines, True) for processes, machines in ((2, 1), (4, 1), (2, 2), (4, 2))]


def settings(folder: Path, plan: Plan, numbers: str) -> list[str]:
    """The overrides of one machine, whose folders are in `folder`."""
    rows = f"train.per_device_train_batch_size={ROWS // plan.processes}"
    places = [f"train.output_dir={folder / 'run'}", f"adapter.store={folder / 'adapters'}", "adapter.name=it"]
    return [*RECIPE, *NUMBERS[numbers], rows, *places, "adapter.publish_worse=true"]


def run_plain(folder: Path, plan: Plan, numbers: str) -> None:
    """The commands of all machines."""
    here = plan.processes // plan.machines
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        join = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE.parent)}
    runs = []
    for number in range(plan.machines):
        launch = ["--processes", str(here)]
        if plan.machines > 1:
            launch += ["--machines", str(plan.machines), "--machine-rank", str(number), "--join", join]
        command = ["-m", "lora_med", "train", "--config", "quickstart_pubmedqa", *launch]
        log = (folder.parent / f"{folder.name}_{number}.txt").open("w", encoding="utf-8")
        arguments = [sys.executable, *command, *settings(folder / str(number), plan, numbers)]
        runs.append(subprocess.Popen(arguments, env=environment, stdout=log, stderr=log))
    codes = [each.wait() for each in runs]
    if any(codes):
        sys.exit(f"{plan}: {codes}\n{(folder.parent / f'{folder.name}_0.txt').read_text(encoding='utf-8')}")


def run_in_shards(folder: Path, plan: Plan, numbers: str) -> None:
    """Forked processes, those of a machine with one folder."""
    import torch

    import lora_med
    from lora_med.config.parse import parse
    from tests.training.fsdp_ranks import run_sharded_ranks

    def one() -> None:
        torch.set_num_threads(1)  # as in the plain runs
        number = int(os.environ["RANK"]) * plan.machines // plan.processes
        here = plan.processes // plan.machines
        os.environ.update(LOCAL_RANK=str(int(os.environ["RANK"]) % here), LOCAL_WORLD_SIZE=str(here))
        os.environ["GROUP_RANK"] = str(number)
        lora_med.train(parse("quickstart_pubmedqa", settings(folder / str(number), plan, numbers)))

    folder.mkdir(parents=True)
    if any(run_sharded_ranks(plan.processes, one, folder)):
        sys.exit((folder / "error-0.txt").read_text(encoding="utf-8"))


def losses(folder: Path) -> tuple[list[float], float]:
    """The loss of each step, and the last validation's."""
    lines = [json.loads(line) for line in (folder / "0/run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line], [
        line["eval_loss"] for line in lines if "eval_loss" in line
    ][-1]


def largest_difference(one: Path, other: Path) -> float:
    """Between the adapters of two runs, over all their weights."""
    from safetensors.torch import load_file

    first, second = (load_file(folder / "0/adapters/it/adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, print the table, and fail where a run is not that of one process."""
    parser = parser_for(__doc__, data=False, rounds=False)
    parser.add_argument("--numbers", choices=NUMBERS, nargs="+", default=list(NUMBERS))
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(HERE.parent))
    print(f"{machine()}\nquickstart_pubmedqa, {ROWS} rows a step, {STEPS} steps, seconds with the start of Python\n")
    print("| number format | processes | machines | base | losses | validation | adapter apart by | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    apart = []
    with tempfile.TemporaryDirectory() as temporary:
        for numbers in options.numbers:
            first = Path(temporary) / f"{numbers.replace(' ', '_')}_0"
            for number, plan in enumerate(PLANS):
                folder = first.with_name(f"{first.name[:-1]}{number}")
                started = time.perf_counter()
                (run_in_shards if plan.sharded else run_plain)(folder, plan, numbers)
                seconds = time.perf_counter() - started
                apart.append(largest_difference(first, folder))
                steps, validation = losses(folder)
                shown = " ".join(f"{loss:.4f}" for loss in steps)
                print(
                    f"| {numbers} | {plan} | {shown} | {validation:.6f} | {apart[-1]:.1e} | {seconds:.0f} |", flush=True
                )
    if max(apart) > WITHIN:
        sys.exit(f"an adapter is {max(apart):.1e} from that of one process, more than {WITHIN}")


if __name__ == "__main__":
    main()
