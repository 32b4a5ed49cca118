"""python benchmarks/gpu.py [--out $OUT/gpu] [--minutes 9]: what lora_med does on a GPU, in one command.

Whoever has a GPU for ten minutes runs this. It goes through parts, each a process of its own: the tests marked `gpu`;
the loss and gradient of one batch against TRL's; kernels against their references; training of 1 B and 8 B shapes in
bfloat16 and NF4, row by row and packed, against TRL's best flags; where the time of a step goes; scoring and writing.
Each part leaves a JSON file in `--out`, and a part whose file is there is not run again. So after the time is over, the
same command continues. A part that fails leaves its error there, and the next call tries it again. `table.md` in
`--out` has all results. The models are random, so nothing is downloaded; they take 20 GB in `--models`.

`--rehearse` goes through the same parts with tiny shapes, also on a CPU: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_table import table

HERE = Path(__file__).resolve().parent
ARMS = ("ours", "trl-best")
TESTS = ("tests/gpu", "tests/models/test_varlen.py")
LEAST_SECONDS = 20  # a part is not begun with less time left
NO_GPU = (
    "no GPU: torch sees no CUDA device on this machine. Run this command on a machine with an NVIDIA GPU and a CUDA "
    "build of torch. `--rehearse` tries the script with tiny shapes on the CPU."
)


@dataclass(frozen=True)
class Part:
    """One process: its name, and the kind and the options that gpu_arm.py takes; `tests` has none."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)


def parts(models: Path, *, rehearse: bool, steps: int) -> Iterator[Part]:
    """All parts, the most important first: a shape's model is made just before its first use."""
    common = {"quantization": "none", "arm": "ours", "packing": False, "batch": 4, "steps": steps, "rounds": 3}
    if rehearse:
        common |= {"batch": 2, "steps": 2, "rounds": 1}

    def part(kind: str, shape: str, name: str, **options: Any) -> Part:
        size = "tiny" if rehearse else shape
        return Part(name, kind, {**common, "shape": size, "folder": str(models / size), **options})

    yield Part("tests", "tests")
    yield part("model", "check", "model_check")
    yield part("equal", "check", "equal")
    yield part("kernels", "check", "kernels")
    for shape in ("8b", "1b"):
        yield part("model", shape, f"model_{shape}")
        for quantization in ("4bit", "none"):
            for packing in (True, False):
                for arm in ARMS:
                    name = f"speed_{shape}_{quantization}_{'packed' if packing else 'separate'}_{arm}"
                    yield part("speed", shape, name, quantization=quantization, packing=packing, arm=arm)
        yield part("profile", shape, f"profile_{shape}_4bit", quantization="4bit", steps=4)
        yield part("evaluate", shape, f"evaluate_{shape}")


def command_of(part: Part, out: Path) -> list[str]:
    """The command of a part."""
    if part.kind == "tests":
        report = f"--junitxml={out / 'tests.xml'}"
        return [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", report, *TESTS]
    return [sys.executable, "-W", "ignore", str(HERE / "gpu_arm.py"), part.kind, json.dumps(part.options)]


def read_tests(report: Path) -> dict[str, Any]:
    """How each test ended, from pytest's report."""
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        ends = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = ends[0] if ends else "passed"
    return {"outcomes": outcomes}


def carry_out(part: Part, out: Path, seconds: float) -> dict[str, Any]:
    """The result of a part; with an `error`, the end of what it printed."""
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    more = {"HF_HUB_OFFLINE": "1", "LORA_MED_TEST_GPU": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    started = time.perf_counter()
    try:
        run = subprocess.run(
            command_of(part, out),
            capture_output=True,
            text=True,
            env={**os.environ, **more},
            cwd=HERE.parent,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {seconds:.0f} s"}
    result: dict[str, Any] = {}
    if part.kind == "tests" and (out / "tests.xml").is_file():
        result = read_tests(out / "tests.xml")
    if run.returncode:
        result["error"] = (run.stdout if part.kind == "tests" else run.stderr)[-4000:]
    elif part.kind != "tests":
        result = json.loads(run.stdout.strip().splitlines()[-1])
    return {**result, "part_seconds": round(time.perf_counter() - started, 1)}


def run_parts(planned: Sequence[Part], out: Path, minutes: float) -> dict[str, dict[str, Any]]:
    """The results of all parts: those that are there, and those that the time allows."""
    end = time.perf_counter() + 60 * minutes
    results: dict[str, dict[str, Any]] = {}
    for part in planned:
        file = out / f"{part.name}.json"
        earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        left = end - time.perf_counter()
        again = earlier is None or "error" in earlier or not is_there(part)
        if again and left > LEAST_SECONDS:
            print(f"{part.name} ({left:.0f} s left)", flush=True)
            earlier = carry_out(part, out, left)
            file.write_text(json.dumps(earlier, indent=1) + "\n", encoding="utf-8")
        if earlier is not None:
            results[part.name] = earlier
    return results


def is_there(part: Part) -> bool:
    """Whether what a part leaves besides its result is still there: the model of a machine that is gone is not."""
    return part.kind != "model" or (Path(part.options["folder"]) / "config.json").is_file()


def facts() -> dict[str, Any]:
    """The machine as the table names it."""
    import torch
    from measure import machine

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return {"gpu": gpu, "cuda": torch.version.cuda, "machine": machine()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ["OUT"]) / "gpu" if "OUT" in os.environ else Path("runs/gpu")
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "lora_med_gpu_models")
    parser.add_argument("--minutes", type=float, default=9.0, help="no part begins or goes on after that")
    parser.add_argument("--steps", type=int, default=10, help="of each training, two of them not timed")
    parser.add_argument("--only", nargs="+", metavar="PREFIX", help="parts whose names begin so, and the models")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes, also on a CPU")
    options = parser.parse_args(arguments)
    import torch

    if not (options.rehearse or torch.cuda.is_available()):
        sys.exit(NO_GPU)
    options.out.mkdir(parents=True, exist_ok=True)
    planned = list(parts(options.models, rehearse=options.rehearse, steps=options.steps))
    if options.only:
        planned = [part for part in planned if part.kind == "model" or part.name.startswith(tuple(options.only))]
    results = run_parts(planned, options.out, options.minutes)
    text = table(facts(), results, [part.name for part in planned], rehearsed=options.rehearse)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    missing = [part.name for part in planned if "error" in results.get(part.name, {"error": "not run"})]
    if missing:
        sys.exit(f"{len(missing)} of {len(planned)} parts are not done: {', '.join(missing)}. Run the command again.")


if __name__ == "__main__":
    main()
