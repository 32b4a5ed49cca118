"""python benchmarks/evaluation_passes.py --data ../shared/data [--task pubmedqa] [--items 24] [--rounds 5]

What scoring questions costs beside the pure forward passes of the same tokens. A pure pass is one prompt alone, without
padding, whose logits are computed for the last token only. `ours` goes from the tokens to a number for each option, as
`lora-med eval` does; with `--adapter` it is timed with that adapter too. Alternating runs of one process; CPU seconds,
because other work on the machine changes them less. Correctness check: the choices, and how much the log-probabilities
differ. The base is SmolLM2-135M-Instruct (`lora-med base get smollm2`), or any other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import Figure, machine, own_dtype, parser_for, save_figures, spread

FILES = {"pubmedqa": "pubmedqa/ori_pqal_nontest500.json", "medmcqa": "medmcqa/dev.json"}
TARGET = "at most 1.15"


def rows_of(base: Any, task: str, data: Path, items: int) -> list[tuple[Any, Any]]:
    """The first items of a task as (prompt, options' tokens)."""
    from lora_med.data.catalog import find_source
    from lora_med.data.formats.find_inputs import find_inputs
    from lora_med.data.outcome import ReadOptions
    from lora_med.data.reading import read_records
    from lora_med.evaluation.scorers.choice_answers import pose_questions

    source = find_source(task)
    records = list(read_records(source, find_inputs(source, [str(data / FILES[task])]), ReadOptions()))[:items]
    return [
        (item.prompt_ids, item.option_ids) for item in pose_questions(records, task, base.model, base.tokenizer).flat()
    ]


def contenders(base: Any, rows: list[tuple[Any, Any]], options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What is timed: the pure passes, ours, and ours with the adapter."""
    from lora_med.adapters.runtime.swap import load_many, use
    from lora_med.evaluation.likelihood.log_probabilities import score_options
    from lora_med.evaluation.runner import context_of

    def passes() -> list[list[float]]:
        scores = []
        with torch.no_grad():
            for prompt, answers in rows:
                output = base.model(input_ids=torch.tensor([list(prompt)]), use_cache=False, logits_to_keep=1)
                values = output.logits[0, -1].float().log_softmax(-1)
                scores.append([float(values[answer[0]]) for answer in answers])
        return scores

    def ours() -> list[list[float]]:
        return score_options(base.model, rows, context_of(base))

    arms: dict[str, Callable[[], Any]] = {"pure passes": passes, "ours": ours}
    if options.adapter:
        pool = load_many(base, [options.adapter], options.store)

        def with_adapter() -> list[list[float]]:
            with use(pool, options.adapter):
                return ours()

        arms["ours, with an adapter"] = with_adapter
    return arms


def main() -> None:
    parser = parser_for(__doc__, rounds=False)
    parser.add_argument("--task", choices=FILES, default="pubmedqa")
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--adapter", help="its name in --store")
    parser.add_argument("--store", type=Path, default=Path("adapters"))
    options = parser.parse_args()
    from lora_med.models.base import load_base

    torch.set_num_threads(options.threads)
    base = load_base(options.base, quantization="none", dtype=own_dtype(options.dtype))
    rows = rows_of(base, options.task, options.data, options.items)
    if any(len(answer) > 1 for _, answers in rows for answer in answers):
        raise SystemExit("the pure passes need options of one token")
    tokens = sum(len(prompt) for prompt, _ in rows)
    arms = contenders(base, rows, options)
    taken: dict[str, list[float]] = {name: [] for name in arms}
    results: dict[str, Any] = {}
    for number in range(options.rounds):
        for name, action in arms.items():
            started = time.process_time()
            results[name] = action()
            taken[name].append(time.process_time() - started)
            print(f"round {number + 1}: {name}, {tokens / taken[name][-1]:,.0f} tokens per CPU second", flush=True)
    pairs = list(zip(results["ours"], results["pure passes"], strict=True))
    difference = max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))
    same = sum(one.index(max(one)) == other.index(max(other)) for one, other in pairs)
    check = f"{same} of {len(pairs)} choices equal, log-probabilities within {difference:.1e}"
    about = f"{options.base}, {base.dtype}, {options.threads} threads, {len(rows)} prompts of {tokens} tokens"
    print(f"\n{machine()}\n{about}")
    print(f"{check}\n\n| what | tokens per CPU second | CPU time of the pure passes |\n|---|---|---|")
    figures = []
    for name, seconds in taken.items():
        ratios = tuple(own / pure for own, pure in zip(seconds, taken["pure passes"], strict=True))
        times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {spread([tokens / each for each in seconds])} | {times} |")
        figures.append(Figure(f"scoring {options.task}, {name}, against pure passes", ratios, "times", TARGET, check))
    save_figures(f"evaluation_passes_{options.task}", figures[1:])


if __name__ == "__main__":
    main()
