"""python benchmarks/number_formats.py --data ../shared/data [--rounds 5]: bfloat16 and float32 on this CPU.

`model.dtype: auto` is bfloat16 on a CPU with instructions for it (AVX512-BF16, AMX), else float32. This script compares
both on SmolLM2-135M-Instruct (`lora-med base get smollm2`): tokens per second of training, as benchmarks/train.py does,
and of scoring PubMedQA's questions as `lora-med eval` does, in alternating runs, each a process of its own. Correctness
check: both formats take the same steps without dropout, whose losses are compared, and answer the same questions.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import Figure, machine, parser_for, run_arm, save_figures, spread
from shapes import REAL, make_model, make_rows
from train import BATCH, ROWS, choose, write_rows

FORMATS = ("bfloat16", "float32")
QUESTIONS, STEPS = 24, 3


def score(folder: str, data: str, dtype: str) -> dict[str, Any]:
    """Tokens per CPU second of scoring the first questions, and the choice for each."""
    from lora_med.data.catalog import find_source
    from lora_med.data.formats.find_inputs import find_inputs
    from lora_med.data.outcome import ReadOptions
    from lora_med.data.reading import read_records
    from lora_med.evaluation.runner import context_of
    from lora_med.evaluation.scorers.choice_answers import pose_questions, score_choices
    from lora_med.models.base import load_base

    base = load_base(folder, quantization="none", dtype=dtype)
    source = find_source("pubmedqa")
    inputs = find_inputs(source, [str(Path(data) / "pubmedqa" / "ori_pqal_nontest500.json")])
    records = list(read_records(source, inputs, ReadOptions()))[:QUESTIONS]
    questions = pose_questions(records, "pubmedqa", base.model, base.tokenizer)
    tokens = sum(len(item.prompt_ids) for item in questions.flat())
    started = time.perf_counter(), time.process_time()
    choices = score_choices(base.model, questions, context_of(base))
    seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    rates = {"tokens_per_second": tokens / seconds, "tokens_per_cpu_second": tokens / cpu_seconds}
    return {**rates, "chosen": choices.predicted}


def main() -> None:
    parser = parser_for(__doc__, real=True)
    parser.set_defaults(shape=REAL)
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    arguments = parser.parse_args()
    reports: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {} for kind in ("training", "scoring")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(arguments.shape, arguments.data, Path(temporary) / "base")
        rows = make_rows(arguments.data, ROWS, folder)
        numbers = choose([len(row["input_ids"]) for row in rows], STEPS)["like"]
        file = write_rows(Path(temporary), "rows.jsonl", [rows[number] for number in numbers])
        for _ in range(arguments.rounds):
            for dtype in FORMATS:
                options = json.dumps({"dtype": dtype, "dropout": 0.0})
                job = ["ours", str(folder), str(file), str(STEPS), str(BATCH), options]
                trained = run_arm("train_arm.py", job, threads=arguments.threads)
                job = [json.dumps([str(folder), str(arguments.data), dtype])]
                scored = run_arm("number_formats.py", job, threads=arguments.threads)
                reports["training"].setdefault(dtype, []).append(trained)
                reports["scoring"].setdefault(dtype, []).append(scored)
                print(json.dumps([dtype, trained["tokens_per_second"], scored["tokens_per_second"]]), flush=True)
    show(reports, arguments)


def show(reports: dict[str, dict[str, list[dict[str, Any]]]], arguments: Any) -> None:
    """The table, the correctness check, and the figures for the table of all benchmarks."""
    print(f"{machine()}\n{arguments.threads} threads, {arguments.shape}, load {os.getloadavg()[0]:.1f}")
    print("| what | bfloat16, tokens/s | float32, tokens/s | bfloat16 is |\n|---|---|---|---|")
    losses = [reports["training"][dtype][0]["losses"] for dtype in FORMATS]
    error = max(abs(a - b) / b for a, b in zip(*losses, strict=True))
    chosen = [reports["scoring"][dtype][0]["chosen"] for dtype in FORMATS]
    same = sum(a == b for a, b in zip(*chosen, strict=True))
    checks = {"training": f"loss error {error:.1e} over {STEPS} steps", "scoring": f"{same} of {len(chosen[0])} equal"}
    figures = []
    for kind, rounds in reports.items():
        speeds = [[report["tokens_per_second"] for report in rounds[dtype]] for dtype in FORMATS]
        ratios = tuple(a / b for a, b in zip(*speeds, strict=True))
        times = f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {kind} ({checks[kind]}) | {spread(speeds[0])} | {spread(speeds[1])} | {times} |")
        figures.append(Figure(f"{kind} in bfloat16 against float32", ratios, "times", "more than 1", checks[kind]))
    save_figures(f"number_formats_{arguments.shape}", figures)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        print(json.dumps(score(*json.loads(sys.argv[1]))))
    else:
        main()
