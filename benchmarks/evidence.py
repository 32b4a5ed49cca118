"""python benchmarks/evidence.py --store DIR: two bases and two adapters on four tasks, into docs/results.md.

`micro` with an adapter trained on PubMedQA (`questions`) and one on MTS-Dialog (`notes`), and stories260K alone, on
validation data: PubMedQA's official fold 0, MedMCQA's dev file, BC5CDR's development set, MTS-Dialog's validation file,
and the general probe. The adapters are trained by the commands on the page, which this script prints too. It replaces
the part of the page after its marker, and writes report.html into --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_med.evaluation.eval_options import EvalOptions
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.results import Evaluation
from lora_med.evaluation.runner import open_adapters
from lora_med.evaluation.sentences import number, signed, span
from lora_med.evaluation.sharing.shared_batches import SharedBatches
from lora_med.evaluation.statistics.multiple_comparisons import Comparison, compare_all
from lora_med.evaluation.tasks import SCORINGS
from lora_med.models.base import load_base
from lora_med.run import prepare_environment, versions
from lora_med.workflows.evaluate import make_jobs, open_job, score_jobs

MARKER = "<!-- evidence -->"
ADAPTERS = ("questions", "notes")
PAGE = Path(__file__).parent.parent / "docs" / "results.md"
SHARED = Path("../shared/data")
CHOSEN, WRITTEN = 1000, 40  # items of tasks that choose, and of tasks that write
TRAIN = "accelerate launch --num_processes 1 --cpu recipes/sft_task.py --config lora_med/assets/configs"
NOTES = ",".join(f"data/mts_dialog/MTS-Dialog-{part}Set.csv" for part in ("Training", "Validation"))
TRAINED = (
    f"{TRAIN}/micro_pubmedqa.yaml data.paths=[data/pubmedqa/ori_pqal_nontest500.json] adapter.name=questions",
    f"{TRAIN}/micro_note.yaml data.leaks=drop train.too_long=drop data.paths=[{NOTES}] adapter.name=notes",
)


def tasks(data: Path) -> tuple[list[str], list[str]]:
    """The tasks that choose and those that write, each with its files."""
    notes = [f"mts_dialog:{data / 'mts_dialog' / f'MTS-Dialog-{part}Set.csv'}" for part in ("Training", "Validation")]
    genes = [f"bc5cdr:{data / 'bc5cdr' / f'CDR_{part}Set.PubTator.txt'}" for part in ("Training", "Development")]
    chosen = [f"pubmedqa:{data / 'pubmedqa' / 'ori_pqal_nontest500.json'}", f"medmcqa:{data / 'medmcqa' / 'dev.json'}"]
    return chosen, [*genes, *notes]


def score(base: str, adapters: Sequence[str], options: argparse.Namespace) -> tuple[list[Evaluation], float]:
    """All tasks on one base, and the seconds they took."""
    started = time.perf_counter()
    published = open_adapters(adapters, options.store)
    cards = [adapter.card for adapter in published]
    loaded = load_base(base, quantization="4bit" if base == "micro" else "none")
    chosen, written = tasks(options.data)
    groups = ((chosen, "validation", CHOSEN), (written, "validation", WRITTEN), (["general"], "test", CHOSEN))
    evaluations: list[Evaluation] = []
    for names, split, most in groups:
        jobs = make_jobs(names, cards, split=split, overrides=() if adapters else ["data.leaks=drop"])
        eval_options = EvalOptions(store=options.store, max_items=most, bootstrap_samples=options.resamples)
        opened = [open_job(job, eval_options.prompt_options, calibrate=False) for job in jobs]
        evaluations += score_jobs(loaded, published, jobs, opened, eval_options, run=SharedBatches())
    return evaluations, time.perf_counter() - started


def rows(evaluation: Evaluation, compared: Sequence[Comparison]) -> list[str]:
    """The lines of the table for one evaluation."""
    by, kind = evaluation.verdict_by, SCORINGS[evaluation.scoring]
    measures = [by, *(measure for measure in evaluation.measures if measure.name in (kind.beside, kind.extent))]
    verdicts = {
        comparison.subject.name: comparison.verdict for comparison in compared if comparison.evaluation is evaluation
    }
    base = Path(str(evaluation.base["name"])).name
    lines = []
    for measure in measures:
        for subject in evaluation.subjects:
            value, change = subject.values[measure.name], subject.changes.get(measure.name)
            cells = [
                evaluation.source,
                f"{len(evaluation.items)}",
                measure.label,
                base + (f" + {subject.adapter}" if subject.adapter else ""),
                f"{number(value.value)} [{span(value.interval)}]",
                "" if change is None else f"{signed(change.difference)} [{span(change.interval, sign=True)}]",
                verdicts.get(subject.name, "") if measure is by else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    for baseline in evaluation.baselines:
        value = baseline.values[by.name]
        who = f"({baseline.name[0].lower()}{baseline.name[1:]})"
        cells = [evaluation.source, str(len(evaluation.items)), by.label, who]
        lines.append("| " + " | ".join([*cells, f"{number(value.value)} [{span(value.interval)}]", "", ""]) + " |")
    return lines


def page(evaluations: Sequence[Evaluation], seconds: Sequence[float]) -> str:
    """The part of docs/results.md after the marker."""
    known: dict[str, Any] = versions()
    compared = compare_all(evaluations)
    packages = ", ".join(f"{name} {known[name]}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    return "\n".join(
        [
            MARKER,
            "",
            "# Two bases and two adapters on four tasks, and on the general probe",
            "",
            "`python benchmarks/evidence.py` writes this part. The validation data are PubMedQA's official fold 0 of",
            "those 500 that are not test, MedMCQA's dev file, BC5CDR's development set and MTS-Dialog's validation",
            "file. Square brackets hold 95% intervals, paired for the differences from the base. Each is one run with",
            "seed 42, and no test item was read. Round brackets hold the baselines, which need no model. A verdict of",
            "better or worse needs an interval clear of zero. It also needs p of at most 0.05 after Holm's correction",
            f"over all {len(compared)} comparisons.",
            "",
            f"Machine: {platform.machine()}, {os.cpu_count()} cores, no GPU. {packages}. "
            f"The two bases took {' and '.join(f'{duration:.0f} s' for duration in seconds)}.",
            "",
            "| task | items | measure | model | value | difference | verdict |",
            "|---|---|---|---|---|---|---|",
            *(line for evaluation in evaluations for line in rows(evaluation, compared)),
            "",
            "The adapters:",
            "",
            "```",
            *TRAINED,
            "```",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--store", type=Path, default=Path("adapters"), help="the store of `questions` and `notes`")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--resamples", type=int, default=10_000)
    options = parser.parse_args()
    prepare_environment(offline=True)
    first, first_seconds = score("micro", ADAPTERS, options)
    second, second_seconds = score(str(options.data / "models" / "stories260K"), (), options)
    report = write_report([*first, *second], options.out, title="Two bases and two adapters")
    text = options.page.read_text(encoding="utf-8") if options.page.is_file() else ""
    before = text[: text.index(MARKER)] if MARKER in text else text
    part = page([*first, *second], (first_seconds, second_seconds))
    options.page.write_text(before.rstrip() + "\n\n" + part, encoding="utf-8")
    print(json.dumps({"report": str(report.html), "findings": report.findings}, indent=1))


if __name__ == "__main__":
    main()
