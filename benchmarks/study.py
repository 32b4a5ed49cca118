"""python benchmarks/study.py --data data [--out runs/study] [--only TASK ...]: results on a real language model.

SmolLM2-135M-Instruct (`lora-med base get smollm2`) learns each task by the settings that ship, two tasks by TRL too,
with equal settings. `lora-med eval` compares with the base on held-out items. Each run is a process of its own; what is
there already is not run again, and a run that was stopped goes on. `benchmarks/study_page.py` writes docs/results.md.

`--data` is the folder of the data files. It has to be reachable by a relative path if reports are to be published.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STORE = "adapters"
PROGRAM = Path(sys.executable).parent / "lora-med"
FOLDS = (1, 2, 3)  # of PubMedQA's ten official folds; the settings were chosen on fold 0


@dataclass(frozen=True)
class Task:
    """What is trained by which settings file, and how it is scored.

    `settings` go to the training and, of the section `data`, to the evaluation. `options` are those of `lora-med eval`.
    `seeds` are trained by lora_med; where there is a `peer`, TRL trains the first.
    """

    config: str
    recipe: str
    files: tuple[str, ...]
    settings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (42,)
    peer: bool = False


PUBMEDQA = {
    f"pubmedqa-fold{fold}": Task(
        "smollm2_pubmedqa",
        "sft_task",
        ("pubmedqa/ori_pqal_nontest500.json",),
        settings=(f"data.fold={fold}",),
        options=("--source", "pubmedqa", "--split", "validation"),
        peer=fold == FOLDS[0],
    )
    for fold in FOLDS
}
BC5CDR = ("bc5cdr/CDR_TrainingSet.PubTator.txt", "bc5cdr/CDR_DevelopmentSet.PubTator.txt")
TASKS: dict[str, Task] = {
    "question_summary": Task(
        "smollm2_question_summary",
        "sft_task",
        ("meqsum",),
        options=("--task", "meqsum"),
        seeds=(42, 43, 44),
        peer=True,
    ),
    "pubmedqa-fold1": PUBMEDQA["pubmedqa-fold1"],
    "exam": Task(
        "smollm2_exam",
        "sft_task",
        ("medmcqa/dev.json",),
        settings=("data.validation_share=0.05", "data.test_share=0.5"),
        options=("--task", "medmcqa", "--split", "test", "--max-items", "1000"),
    ),
    "pubmed": Task(
        "smollm2_pubmed", "sft_pubmed", ("pubmed_xml/pubmed20n1015.xml.gz",), options=("--task", "abstracts")
    ),
    "note": Task(
        "smollm2_note",
        "sft_task",
        ("mts_dialog/MTS-Dialog-TrainingSet.csv", "mts_dialog/MTS-Dialog-ValidationSet.csv"),
        options=("--task", "mts_dialog", "--split", "validation"),
    ),
    "pubmedqa-fold2": PUBMEDQA["pubmedqa-fold2"],
    "pubmedqa-fold3": PUBMEDQA["pubmedqa-fold3"],
    "tags": Task("smollm2_tags", "tag_entities", BC5CDR, options=("--source", "bc5cdr", "--split", "validation")),
    "entities": Task(
        "smollm2_entities",
        "sft_task",
        BC5CDR,
        options=("--task", "bc5cdr", "--split", "validation", "--max-items", "100"),
    ),
}


@dataclass(frozen=True)
class Step:
    """One process: its name, its command, and the file whose presence says that it ended well."""

    name: str
    command: list[str] = field(repr=False)
    result: Path


def own_steps(name: str, task: Task, options: argparse.Namespace) -> Iterator[Step]:
    """Training by lora_med with each seed, and one evaluation of all of them with the base."""
    out, adapters = options.out, [f"{name}-{seed}" for seed in task.seeds]
    for seed, adapter in zip(task.seeds, adapters, strict=True):
        recipe = str(HERE.parent / "recipes" / f"{task.recipe}.py")
        command = [sys.executable, recipe, "--config", task.config, *settings(task, options)]
        command += [f"train.seed={seed}", f"train.output_dir={out / 'runs' / adapter}", f"adapter.name={adapter}"]
        command += [f"adapter.store={out / STORE}", "adapter.overwrite=true", "adapter.publish_worse=true"]
        yield Step(adapter, command, out / f"{adapter}.json")
    yield report(name, adapters, task, options)


def peer_steps(name: str, task: Task, options: argparse.Namespace) -> Iterator[Step]:
    """Training by TRL with the first seed, and one evaluation of its adapter and ours with the base."""
    out, store, seed, peer = options.out, str(options.out / STORE), task.seeds[0], f"{name}-trl"
    folder = out / "runs" / peer
    command = [sys.executable, str(HERE / "study_trl.py"), "--config", task.config, "--out", str(folder)]
    yield Step(peer, [*command, *settings(task, options), f"train.seed={seed}"], out / f"{peer}.json")
    adopt = [str(PROGRAM), "adapters", "adopt", str(folder), "--base", "smollm2", "--name", peer, "--store", store]
    adopt += ["--template", template(out / "runs" / f"{name}-{seed}"), "--access", "open", "--overwrite"]
    yield Step(f"{peer}-adopted", adopt, out / f"{peer}-adopted.json")
    yield report(peer, [f"{name}-{seed}", peer], task, options)


def report(name: str, adapters: Sequence[str], task: Task, options: argparse.Namespace) -> Step:
    """One evaluation of the base and these adapters."""
    out = options.out
    command = [str(PROGRAM), "eval", "--base", "smollm2", "--store", str(out / STORE)]
    command += ["--out", str(out / "reports" / name)]
    for adapter in adapters:
        command += ["--adapter", adapter]
    for file in task.files:
        command += ["--data", str(options.data / file)]
    of_data = [setting for setting in task.settings if setting.startswith("data.")]
    return Step(f"{name}-report", [*command, *task.options, *of_data], out / f"{name}-report.json")


def settings(task: Task, options: argparse.Namespace) -> list[str]:
    """What is set beside the settings file."""
    paths = [str(options.data / file) for file in task.files]
    return [*task.settings, f"data.paths=[{','.join(paths)}]"]


def template(run: Path) -> str:
    """The prompt template that a run trained."""
    return str(json.loads((run / "run.json").read_text(encoding="utf-8"))["template"])


def carry_out(step: Step) -> dict[str, Any]:
    """Run a step; its wall and CPU seconds and its peak memory, as the kernel counted them."""
    started = time.perf_counter()
    process = subprocess.Popen(step.command)
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise SystemExit(f"{step.name} ended with {code}: {' '.join(step.command)}")
    return {
        "name": step.name,
        "command": [Path(word).name if word.startswith("/") else word for word in step.command],
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": usage.ru_maxrss // 1024,
        "load": os.getloadavg()[0],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data files")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    of_tasks = [own_steps(name, TASKS[name], options) for name in options.only]
    of_peers = [peer_steps(name, TASKS[name], options) for name in options.only if TASKS[name].peer]
    for step in chain.from_iterable([*of_tasks, *of_peers]):
        if not step.result.is_file():
            print(f"{time.strftime('%H:%M:%S')} {step.name}", flush=True)
            result = carry_out(step)
            step.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
