"""From text to trusted adapters in five minutes, on a CPU, without a network; `make quickstart` runs this.

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

import lora_med

ROOT = Path(__file__).resolve().parent.parent
PARTS = {  # the folder of the run -> its recipe and settings
    "pubmed": ("recipes/sft_pubmed.py", "recipes/configs/quickstart_pubmed.yaml"),
    "pubmedqa": ("recipes/sft_task.py", "recipes/configs/quickstart_pubmedqa.yaml"),
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


def size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e6:.1f} MB"


def main(out: Path, overrides: list[str]) -> None:
    begun = time.perf_counter()
    runs = {part: out / part for part in PARTS}
    settings: dict[str, lora_med.Settings] = {}
    for part, (recipe, config) in PARTS.items():
        mine = [*overrides, f"train.output_dir={runs[part]}"]
        settings[part] = lora_med.parse(config, mine)
        shutil.rmtree(runs[part], ignore_errors=True)
        train(recipe, config, mine)
    names = {part: one.adapter.name for part, one in settings.items()}
    store, model = settings["pubmed"].adapter.store, settings["pubmed"].model

    print("\nEvaluating base and adapters on held-out items, one base loaded once ...", flush=True)
    base = lora_med.load_base(model.base, quantisation=model.quantisation, dtype=model.dtype)
    adapted = lora_med.load_many(base, list(names.values()), store)
    evaluations = []
    for part, one in settings.items():
        card = lora_med.read_card(lora_med.find_adapter(names[part], store))
        evaluation = lora_med.evaluate(
            base,
            [names[part]],
            lora_med.open_heldout(one.data, one.evaluate.split),
            template=card.template,
            source=one.data.source,
            split=one.evaluate.split,
            store=store,
            model=adapted,
            max_items=one.evaluate.max_items,
            bootstrap_samples=one.evaluate.bootstrap_samples,
        )
        lora_med.record_scores(evaluation, store)
        evaluations.append(evaluation)
    swaps = lora_med.check_swaps(base, adapted, list(names.values()))

    print("Merging one adapter into its base, and proving it ...", flush=True)
    shutil.rmtree(out / "merged", ignore_errors=True)
    merged = lora_med.merge_adapter(names["pubmed"], out / "merged", base=model.base, store=store)

    facts = {f"training {names[part]}": f"{seconds(folder)} s" for part, folder in runs.items()}
    facts |= {
        f"scoring {subject.name}, {len(one.items)} items": f"{subject.seconds:.1f} s"
        for one in evaluations
        for subject in one.subjects
    }
    facts |= {f"adapter {name} on disk": size(lora_med.find_adapter(name, store)) for name in names.values()}
    facts |= {"merged model on disk": size(merged.folder), "merging and proving": f"{merged.certificate['seconds']} s"}
    facts["the whole quickstart"] = f"{time.perf_counter() - begun:.0f} s"
    steps = [
        "lora-med adapters list",
        f'lora-med generate --adapter {names["pubmed"]} --prompt "Background: "',
        f'python recipes/swap_adapters.py {" ".join(names.values())} --prompt "Aspirin is"',
        "accelerate launch recipes/sft_pubmed.py --config recipes/configs/micro_pubmed.yaml "
        "'data.paths=[your/pubmed.xml.gz]'",
    ]
    report = lora_med.write_report(
        evaluations,
        out,
        title=f"Quickstart: two adapters from {model.base}",
        curves={names[part]: folder / "metrics.jsonl" for part, folder in runs.items()},
        merges=[merged.certificate],
        swaps=swaps,
        facts=facts,
        next_steps=steps,
    )
    print("\n" + "\n".join(report.findings))
    print(f"\nreport: {report.html}\nnumbers: {report.json}\nmerged model: {merged.folder}\n\nWhat to type next:")
    print("\n".join(f"  {step}" for step in steps))


def seconds(folder: Path) -> float:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["seconds"]


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
