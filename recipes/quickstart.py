"""From text to trusted adapters in some minutes, on a CPU, without a network; `make quickstart` runs this.

    python recipes/quickstart.py

Trains two adapters on the sample corpus: one on abstracts, one on questions and answers. Measures each against its base
on items it has not seen, swaps between them on one loaded base, merges one and proves the merge, and writes the report.
It replaces the output of an earlier quickstart in runs/quickstart. `key=value` goes to both trainings.
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
RUNS = {  # the folder of the run -> its recipe and settings
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
    result = subprocess.run(command, check=False)
    if result.returncode:
        sys.exit(result.returncode)


def compare(runs: dict[str, lora_med.Settings]) -> tuple[list[lora_med.Evaluation], tuple[Any, ...]]:
    """Base against adapter on each run's held-out items, and the swaps between them: one base, loaded once."""
    first = runs["pubmed"]
    names, store, model = [run.adapter.name for run in runs.values()], first.adapter.store, first.model
    base = lora_med.load_base(model.base, quantization=model.quantization, dtype=model.dtype)
    pool = lora_med.load_many(base, names, store)
    evaluations = []
    for name, run in zip(names, runs.values(), strict=True):
        evaluation = lora_med.evaluate(
            base,
            [name],
            lora_med.open_heldout(run.data, run.evaluate.split, access=run.adapter.access),
            lora_med.EvalOptions(
                lora_med.read_card(lora_med.find_adapter(name, store)).template,
                store=store,
                max_items=run.evaluate.max_items,
                bootstrap_samples=run.evaluate.bootstrap_samples,
            ),
            pool=pool,
        )
        lora_med.record_scores(evaluation, store)
        evaluations.append(evaluation)
    return evaluations, lora_med.check_swaps(pool, names)


def sizes_and_times(
    runs: dict[str, lora_med.Settings], evaluations: list[lora_med.Evaluation], merged: lora_med.Merge
) -> dict[str, str]:
    """What was measured -> its value with the unit, for the report."""
    facts = {}
    for run in runs.values():
        recorded = json.loads((Path(run.train.output_dir) / "run.json").read_text(encoding="utf-8"))
        facts[f"training {run.adapter.name}"] = f"{recorded['seconds']} s"
    for evaluation in evaluations:
        for subject in evaluation.subjects:
            what = f"scoring {len(evaluation.items)} {evaluation.source} items, {subject.name}"
            facts[what] = f"{subject.seconds:.1f} s"
    for run in runs.values():
        folder = lora_med.find_adapter(run.adapter.name, run.adapter.store)
        facts[f"adapter {run.adapter.name} on disk"] = size(folder)
    return facts | {
        "merged model on disk": size(merged.folder),
        "merging and proving": f"{merged.certificate['seconds']} s",
    }


def size(folder: Path) -> str:
    """The size of all files in a folder, in MB."""
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size_bytes / 1e6:.1f} MB"


def main(out: Path, overrides: list[str]) -> None:
    started = time.perf_counter()
    overrides_of = {run: [*overrides, f"train.output_dir={out / run}"] for run in RUNS}
    runs = {run: lora_med.parse(config, overrides_of[run]) for run, (_, config) in RUNS.items()}
    for folder in ("merged", *RUNS):
        shutil.rmtree(out / folder, ignore_errors=True)
    for run, (recipe, config) in RUNS.items():
        train(recipe, config, overrides_of[run])

    print("\nEvaluating base and adapters on held-out items, one base loaded once ...", flush=True)
    evaluations, swaps = compare(runs)
    names, base = [settings.adapter.name for settings in runs.values()], runs["pubmed"].model.base
    print("Merging one adapter into its base, and proving it ...", flush=True)
    merged = lora_med.merge_adapter(names[0], out / "merged", base=base, store=runs["pubmed"].adapter.store)

    facts = sizes_and_times(runs, evaluations, merged)
    steps = [
        *([] if os.environ.get("VIRTUAL_ENV") else [". .venv/bin/activate"]),
        "lora-med adapters list",
        f'lora-med generate --adapter {names[0]} --prompt "Background: "',
        f"lora-med review {out} --data sample:qa_sample.json --adapter {' --adapter '.join(names)}",
        f'python recipes/swap_adapters.py {" ".join(names)} --prompt "Aspirin is"',
        "lora-med train --config micro_pubmed 'data.paths=[your/pubmed.xml.gz]'",
    ]
    report = lora_med.write_report(
        evaluations,
        out,
        title=f"Quickstart: two adapters from {base}",
        curves={run.adapter.name: Path(run.train.output_dir) / "metrics.jsonl" for run in runs.values()},
        merges=[merged.certificate],
        swaps=swaps,
        facts={**facts, "the complete quickstart": f"{time.perf_counter() - started:.0f} s"},
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
