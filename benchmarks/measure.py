"""What the benchmarks of training share: arms in processes of their own, medians with ranges, figures for one table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shapes import REAL, SHAPES

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "runs" / "bench"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def parser_for(
    doc: str | None, *, data: bool = True, rounds: bool = True, real: bool = False
) -> argparse.ArgumentParser:
    """The options that the benchmarks of training share; `doc` is what `--help` prints about the script.

    Args:
        data: whether it reads data.
        rounds: whether it runs in rounds, on a model of one shape.
        real: whether that may be SmolLM2 itself instead of random weights.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    if data and rounds:
        parser.add_argument("--shape", choices=[*SHAPES, *([REAL] if real else [])], default="135m")
    if rounds:
        parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    return parser


@dataclass(frozen=True)
class Figure:
    """One line of the table: what was measured, each round's value, the target, and the run's correctness check."""

    name: str
    values: tuple[float, ...]
    unit: str
    target: str
    correctness_check: str


def save_figures(script: str, figures: Sequence[Figure]) -> None:
    """Write a script's figures into the folder that `benchmarks/table.py` reads."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "figures": [asdict(figure) for figure in figures]}
    (RESULTS / f"{script}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def machine() -> str:
    """The CPU, its cores, and the packages that compute."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores; " + ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def own_dtype(requested: str) -> str:
    """The requested number format; for "auto", the one in which this CPU multiplies fastest, as lora_med chooses it."""
    from lora_med.models.precision import best_dtype

    return best_dtype("cpu").value if requested == "auto" else requested


def environment(threads: int, **more: str) -> dict[str, str]:
    """The variables of an arm's process: ours, the number of threads, this package, no network, and `more`."""
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    own = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return {**os.environ, **own, **more}


def run_arm(script: str, arguments: Sequence[str], *, threads: int, python: str = sys.executable, **more: str) -> Any:
    """The JSON that a script of this folder prints last, run alone with that many threads.

    Args:
        more: further variables of its environment.
    """
    command = [python, "-W", "ignore", str(HERE / script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(threads, **more), check=False)
    if result.returncode:
        what = f"{script} {arguments[0]} ended with {result.returncode} (-9: no memory left)"
        sys.exit(f"{what}:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])
