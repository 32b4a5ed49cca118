"""From text to trusted adapters in some minutes, on a CPU, without a network; `make quickstart` runs this.

    python recipes/quickstart.py

Trains two adapters on the sample corpus (abstracts; questions and answers), measures each against its base on items it
has not seen, swaps between them on one loaded base, merges one and proves the merge, and writes the report. It starts
anew each time: what an earlier quickstart left in runs/quickstart is replaced. `key=value` goes to both trainings.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lora_med

ROOT = Path(__file__).resolve().parent.parent
PARTS = {  # the folder of the run -> its recipe and settings
    "pubmed": ("recipes/sft_pubmed.py", "quickstart_pubmed"),
    "pubmedqa": ("recipes/sft_task.py", "quickstart_pubmedqa"),
}


def train(recipe: str, config: str, overrides: list[str]) -> None:
    """One training as a user would start it, in a process of its own."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--num_cpu_threads_per_process", os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())]
    command = [*launch, recipe, "--config", config, *overrides]
    print(f"\n$ accelerate launch {recipe} --config {config}", flush=True)
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def compare(parts: dict[str, lora_med.Settings]) -> tuple[list[lora_med.Evaluation], tuple[Any, ...]]:
    """Base against adapter on each part's held-out items, and the swaps between them: one base, loaded once."""
    first = parts["pubmed"]
    names, store, model = [one.adapter.name for one in parts.values()], first.adapter.store, first.model
    base = lora_med.load_base(model.base, quantization=model.quantization, dtype=model.dtype)
    pool = lora_med.load_many(base, names, store)
    evaluations = []
    for name, one in zip(names, parts.values(), strict=True):
        evaluation = lora_med.evaluate(
            base,
            [name],
            lora_med.open_heldout(one.data, one.evaluate.split),
            lora_med.EvalOptions(
                lora_med.read_card(lora_med.find_adapter(name, store)).template,
                store=store,
                max_items=one.evaluate.max_items,
                bootstrap_samples=one.evaluate.bootstrap_samples,
            ),
            pool=pool,
        )
        lora_med.record_scores(evaluation, store)
        evaluations.append(evaluation)
    return evaluations, lora_med.check_swaps(pool, names)


def sizes_and_times(
    parts: dict[str, lora_med.Settings], evaluations: list[lora_med.Evaluation], merged: lora_med.Merge
) -> dict[str, str]:
    found = {}
    for one in parts.values():
        run = json.loads((Path(one.train.output_dir) / "run.json").read_text(encoding="utf-8"))
        found[f"training {one.adapter.name}"] = f"{run['seconds']} s"
    for one in evaluations:
        for subject in one.subjects:
            found[f"scoring {len(one.items)} {one.source} items, {subject.name}"] = f"{subject.seconds:.1f} s"
    for one in parts.values():
        found[f"adapter {one.adapter.name} on disk"] = size(lora_med.find_adapter(one.adapter.name, one.adapter.store))
    return found | {
        "merged model on disk": size(merged.folder),
        "merging and proving": f"{merged.certificate['seconds']} s",
    }


def size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e6:.1f} MB"


def main(out: Path, overrides: list[str]) -> None:
    begun = time.perf_counter()
    own = {part: [*overrides, f"train.output_dir={out / part}"] for part in PARTS}
    parts = {part: lora_med.parse(config, own[part]) for part, (_, config) in PARTS.items()}
    for part in ("merged", *PARTS):
        shutil.rmtree(out / part, ignore_errors=True)
    for part, (recipe, config) in PARTS.items():
        train(recipe, config, own[part])

    print("\nEvaluating base and adapters on held-out items, one base loaded once ...", flush=True)
    evaluations, swaps = compare(parts)
    names, base = [one.adapter.name for one in parts.values()], parts["pubmed"].model.base
    print("Merging one adapter into its base, and proving it ...", flush=True)
    merged = lora_med.merge_adapter(names[0], out / "merged", base=base, store=parts["pubmed"].adapter.store)

    facts = sizes_and_times(parts, evaluations, merged)
    steps = [
        *([] if os.environ.get("VIRTUAL_ENV") else [". .venv/bin/activate"]),
        "lora-med adapters list",
        f'lora-med generate --adapter {names[0]} --prompt "Background: "',
        f'python recipes/swap_adapters.py {" ".join(names)} --prompt "Aspirin is"',
        "lora-med train --config micro_pubmed 'data.paths=[your/pubmed.xml.gz]'",
    ]
    report = lora_med.write_report(
        evaluations,
        out,
        title=f"Quickstart: two adapters from {base}",
        curves={one.adapter.name: Path(one.train.output_dir) / "metrics.jsonl" for one in parts.values()},
        merges=[merged.certificate],
        swaps=swaps,
        facts={**facts, "the whole quickstart": f"{time.perf_counter() - begun:.0f} s"},
        next_steps=steps,
    )
    print("\n" + "\n".join(report.findings))
    print(f"\nreport: {report.html}\nnumbers: {report.json}\nmerged model: {merged.folder}\n\nWhat to type next:")
    print("\n".join(f"  {step}" for step in steps))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder of runs, merge and report")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of both trainings")
    options = parser.parse_args()
    os.chdir(ROOT)
    lora_med.prepare_environment(offline=True)
    try:
        main(options.out, options.overrides)
    except lora_med.LoraMedError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
