"""python benchmarks/privacy.py --data data [--epsilons inf 8 3 1] [--seeds 42 43 44] [--out runs/privacy]

What differential privacy costs in utility: micro learns diseases of NCBI-disease as tags (or yes, no and maybe of
PubMedQA, `--task pubmedqa`), once without privacy and once at each epsilon. `lora-med eval` compares all adapters with
the base on the development texts. Each run is a process of its own; one that is done is not run again. The script
prints a table and writes it to table.md in `--out`. For tags a sentence is the patient, for PubMedQA an abstract.
Without privacy too the last adapter is published. Adapters are on the upper `--layers` of six layers.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import machine
from study import PROGRAM, STORE, Step, carry_out

from lora_med.evaluation.sentences import number, signed, span
from lora_med.metrics.significance import Interval


@dataclass(frozen=True)
class Learned:
    """What is learned by which settings file, and the measure that decides."""

    config: str
    source: str
    files: tuple[str, ...]
    measure: str
    settings: tuple[str, ...] = ()


TASKS = {
    "tags": Learned(
        "micro_tags",
        "conll",
        ("ncbi_disease/conll/train.tsv", "ncbi_disease/conll/devel.tsv"),
        "micro_f1",
        ("data.leaks=drop", "adapter.access=open"),
    ),
    "pubmedqa": Learned(
        "micro_pubmedqa",
        "pubmedqa",
        ("pubmedqa/ori_pqal_nontest500.json",),
        "accuracy",
        ("evaluate.eval_steps=0", "evaluate.load_best_model_at_end=true", "train.early_stopping_patience=null"),
    ),
}


def adapter_of(epsilon: float, seed: int) -> str:
    """The name of an adapter."""
    return f"epsilon-{epsilon:g}-{seed}".replace(".", "_")


def train_step(epsilon: float, seed: int, options: argparse.Namespace) -> Step:
    """One training."""
    task, out, name = TASKS[options.task], options.out, adapter_of(epsilon, seed)
    paths = ",".join(str(options.data / file) for file in task.files)
    command = [str(PROGRAM), "train", "--config", task.config, *task.settings, f"data.source={task.source}"]
    command += [f"data.paths=[{paths}]", f"train.seed={seed}", f"train.output_dir={out / 'runs' / name}"]
    command += [f"train.num_train_epochs={options.epochs:g}", f"train.learning_rate={options.learning_rate:g}"]
    command += [f"train.per_device_train_batch_size={options.batch}"]
    command += [f"train.gradient_accumulation_steps={options.accumulation}", "adapter.publish_worse=true"]
    command += [f"lora.layers_to_transform={list(range(6 - options.layers, 6))}"]
    command += [f"adapter.name={name}", f"adapter.store={out / STORE}", "adapter.overwrite=true"]
    if math.isfinite(epsilon):
        command += [f"train.privacy.epsilon={epsilon:g}", f"train.privacy.delta={options.delta:g}"]
    else:
        command += ["train.eval_steps=1000000"]  # no validation chooses an earlier adapter
    return Step(name, command, out / f"{name}.json")


def report_step(options: argparse.Namespace) -> Step:
    """One evaluation of all adapters and the base."""
    task, out = TASKS[options.task], options.out
    command = [str(PROGRAM), "eval", "--source", task.source, "--split", "validation", "--access", "open"]
    command += ["--store", str(out / STORE), "--out", str(out / "report")]
    for name in (adapter_of(epsilon, seed) for epsilon in options.epsilons for seed in options.seeds):
        command += ["--adapter", name]
    for file in task.files:
        command += ["--data", str(options.data / file)]
    return Step("report", command, out / "report.json")


def table(options: argparse.Namespace) -> str:
    """The page: for each epsilon what was spent, the score, and the difference from the base."""
    report = json.loads((options.out / "report" / "report.json").read_text(encoding="utf-8"))
    (evaluation,) = report["evaluations"]
    measure = TASKS[options.task].measure
    base, *subjects = evaluation["subjects"]
    scores = {subject["adapter"]: subject for subject in subjects}
    lines = [
        f"Base: {shown(base['values'][measure])} {measure}, {evaluation['items']} items of {evaluation['split']}.",
        "",
        "| epsilon | spent | noise multiplier | clip | seeds | score | difference from the base | verdict | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for epsilon in options.epsilons:
        names = [adapter_of(epsilon, seed) for seed in options.seeds]
        cards = [json.loads((options.out / STORE / name / "card.json").read_text(encoding="utf-8")) for name in names]
        spent = cards[0].get("privacy", {})
        seconds = [json.loads((options.out / f"{name}.json").read_text())["cpu_seconds"] for name in names]
        change, verdict = over_base(evaluation, scores, names, measure)
        cells = [
            f"{epsilon:g}",
            f"{spent['epsilon']:.2f}" if spent else "no bound",
            f"{spent['noise_multiplier']:.2f}" if spent else "none",
            f"{spent['clip']:g}" if spent else "none",
            str(len(names)),
            ", ".join(number(scores[name]["values"][measure]["value"]) for name in names),
            change,
            verdict,
            f"{sum(seconds) / len(seconds):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    facts = next((card["privacy"] for card in _cards(options) if card.get("privacy")), None)
    if facts:
        lines += ["", f"{facts['patients']:,} patients, {facts['patients_a_step']:,} in a step on average, "
                  f"{facts['steps']:,} steps, delta {facts['delta']:g}."]  # fmt: skip
    return "\n".join([*lines, "", f"Machine: {machine()}.", ""])


def over_base(
    evaluation: dict[str, Any], scores: dict[str, Any], names: Sequence[str], measure: str
) -> tuple[str, str]:
    """The difference from the base with its interval, over items and, with several seeds, over these too."""
    for runs in evaluation["runs"]:
        if set(runs["adapters"]) == set(names) and runs["measure"] == measure:
            return f"{signed(runs['mean'])} [{_span(runs)}]", runs["verdict"]
    change = scores[names[0]]["changes"][measure]
    return f"{signed(change['difference'])} [{_span(change)}]", change["verdict"]


def shown(value: dict[str, Any]) -> str:
    """A value and its interval."""
    return f"{number(value['value'])} [{span(Interval(value['low'], value['high'], value['method']))}]"


def _span(change: dict[str, Any]) -> str:
    return span(Interval(change["low"], change["high"], change["method"]), sign=True)


def _cards(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in (options.out / STORE).glob("*/card.json")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, score, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/privacy"))
    parser.add_argument("--task", choices=TASKS, default="tags")
    parser.add_argument("--epsilons", nargs="+", type=float, default=[math.inf, 8.0, 3.0, 1.0])
    parser.add_argument("--delta", type=float, default=1e-4, help="below one over the number of patients")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--layers", type=int, default=6, help="how many of micro's layers get an adapter")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--batch", type=int, default=16, help="patients in a pass")
    parser.add_argument("--accumulation", type=int, default=4, help="passes in a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    steps = [train_step(epsilon, seed, options) for epsilon in options.epsilons for seed in options.seeds]
    for step in [*steps, report_step(options)]:
        if not step.result.is_file():
            print(step.name, flush=True)
            step.result.write_text(json.dumps(carry_out(step), indent=1) + "\n", encoding="utf-8")
    page = table(options)
    (options.out / "table.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
