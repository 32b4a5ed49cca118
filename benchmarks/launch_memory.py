"""python benchmarks/launch_memory.py [--records 5000 1000000] [--work FOLDER]: what two training processes hold.

A run is `lora-med train --processes 2` on the corpus of benchmarks/scale.py: packed rows of 1,024 tokens, the embedded
base, two steps. Each process's private memory (pages that it shares with nobody) is read four times a second, until it
ends. `clean` are those of its pages that hold a file which no other process has mapped: the kernel can drop them at any
time. `own` is the rest, at its largest, and `after` the share of the run that was over then. The first size is so small
that its rows do not count: what the others take above it, their data take. Processes that prepare rows are children of
the training processes and end before the first step; they are not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import HERE, machine, parser_for
from scale import REAL, SAMPLE, make_corpus

EVERY = 0.25  # seconds between two looks
SETTINGS = ["data.source=pubmed", "data.validation_share=0.001", "data.test_share=0", "train.packing=true"]
SETTINGS += ["train.max_length=1024", "train.max_steps=2", "train.per_device_train_batch_size=1", "model.base=micro"]
SETTINGS += ["model.load_in_4bit=false", "model.dtype=float32", "adapter.publish_worse=true", "adapter.name=it"]


def children(parent: int) -> list[int]:
    """The process ids of the direct children."""
    listing = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(number) for number in listing.read_text(encoding="ascii").split()] if listing.exists() else []


def private_mb(process: int) -> tuple[float, float] | None:
    """Megabytes that the process shares with nobody, its own and clean pages of files; None if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    held = {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines if line.startswith("Private_")}
    return (held["Private_Dirty"] + held.get("Private_Hugetlb", 0.0), held["Private_Clean"]) if held else None


def launch(texts: Path, folder: Path, log: Path) -> tuple[dict[int, list[tuple[float, float]]], float]:
    """The private megabytes of each training process at each look, and the run's seconds."""
    places = [f"data.paths=[{texts}]", f"train.output_dir={folder / 'run'}", f"adapter.store={folder / 'adapters'}"]
    command = [sys.executable, "-m", "lora_med", "train", "--processes", "2", *SETTINGS, *places]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE.parent)}
    looks: dict[int, list[tuple[float, float]]] = {}
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        run = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        while run.poll() is None:
            for process in children(run.pid):
                held = private_mb(process)
                if held is not None:
                    looks.setdefault(process, []).append(held)
            time.sleep(EVERY)
    if run.returncode:
        sys.exit(f"the run ended with {run.returncode}:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return looks, time.perf_counter() - started


def main() -> None:
    parser = parser_for(__doc__, rounds=False)
    parser.add_argument("--records", type=int, nargs="+", default=[5_000, 1_000_000])
    parser.add_argument("--work", type=Path, help="where corpus and rows are; default: TMPDIR")
    options = parser.parse_args()
    source = options.data / REAL if (options.data / REAL).is_file() else SAMPLE
    print(f"{machine()}; load before: {os.getloadavg()[0]:.1f}\n")
    print("| records | process | largest private, MB | above the first size | own | above | after | clean | run, s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    smallest: list[float] = []
    least_own: list[float] = []
    for count in options.records:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            texts = Path(work) / "corpus"
            texts.mkdir()
            make_corpus(source, count, texts)
            looks, seconds = launch(texts, Path(work) / "machine", Path(work) / "log.txt")
            totals = [[own + clean for own, clean in held] for held in looks.values()]
            owns = [[own for own, _ in held] for held in looks.values()]
            smallest, least_own = smallest or [*map(max, totals)], least_own or [*map(max, owns)]
            for number, (total, own, held) in enumerate(zip(totals, owns, looks.values(), strict=True)):
                after = own.index(max(own)) / len(own)
                clean = max(clean for _, clean in held)
                figures = f"{max(total):,.0f} | {max(total) - max(smallest):,.0f} | {max(own):,.0f} | "
                figures += f"{max(own) - max(least_own):,.0f} | {after:.0%} | {clean:,.0f} | {seconds:,.0f}"
                print(f"| {count:,} | {number} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
