"""python benchmarks/prepare.py [--repeat 34] [--rounds 5]: rows to tokens, by us and by TRL's SFTTrainer.

Three shapes of data: questions on abstracts as prompt and completion, the same as conversations, and running text. Both
take the same rows and the same tokenizer (the embedded base's), in alternating runs of one process. Correctness check:
the token ids, and which of them are trained, are the same.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import statistics
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}  # as lora_med itself sets them
SAMPLE = Path(__file__).parent.parent / "lora_med" / "assets" / "sample"
KINDS = ("pubmedqa", "pubmedqa_chat", "text")


def rows_of(kind: str, repeat: int) -> list[Any]:
    """Rendered rows of one shape; uids are made unique by their number."""
    from dataclasses import replace

    from lora_med import Settings, open_corpus
    from lora_med.prompts.render import render

    names = {"text": ("pubmed", "pubmed_sample.xml.gz", "text")}
    source, file, template = names.get(kind, ("pubmedqa", "qa_sample.json", kind))
    data = Settings().data.model_copy(
        update={"source": source, "paths": [str(SAMPLE / file)], "validation_share": 0.0, "test_share": 0.0}
    )
    rows = render(open_corpus(data).train, template)
    return [replace(row, uid=f"{row.uid}:{number}") for number in range(repeat) for row in rows]


def as_trl(row: Any) -> dict[str, Any]:
    """A row in the form TRL takes."""
    if row.turns:
        turns = [{"role": role, "content": content} for role, content in row.turns]
        return {"prompt": turns[:-1], "completion": turns[-1:]}
    return {"prompt": row.prompt, "completion": row.completion} if row.prompt else {"text": row.completion}


def trl_prepare(rows: list[dict[str, Any]], tokenizer: Any, folder: str) -> Callable[[], list[tuple[list[int], Any]]]:
    """A function that calls TRL's own preparation; it returns `(ids, mask or None)` of each row."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    logging.disable(logging.WARNING)
    arguments = SFTConfig(output_dir=folder, use_cpu=True, report_to="none", max_length=4096)
    stub: Any = types.SimpleNamespace(
        _tokenizer=tokenizer, completion_only_loss="prompt" in rows[0], chat_template=None
    )

    def prepare() -> list[tuple[list[int], Any]]:
        dataset = datasets.Dataset.from_list(rows)
        prepared = SFTTrainer._prepare_dataset(stub, dataset, tokenizer, arguments, False, None, "train")
        return [(row["input_ids"], row.get("completion_mask")) for row in prepared]

    return prepare


def compare(kind: str, repeat: int, rounds: int, folder: str) -> str:
    """One line of the table."""
    from lora_med.models.files.resolve import resolve_base
    from lora_med.models.tokenizer import load_tokenizer
    from lora_med.prompts.fit import fit_rows

    rows = rows_of(kind, repeat)
    tokenizer, _ = load_tokenizer(resolve_base("micro", None)[0])
    theirs = trl_prepare([as_trl(row) for row in rows], tokenizer, folder)
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "trl": []}
    ours: list[Any] = []
    peer: list[tuple[list[int], Any]] = []
    for _ in range(rounds):
        started = time.perf_counter(), time.process_time()
        ours = fit_rows(rows, tokenizer, 4096)
        times["ours"].append((time.perf_counter() - started[0], time.process_time() - started[1]))
        started = time.perf_counter(), time.process_time()
        peer = theirs()
        times["trl"].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    same = sum(
        tokens.input_ids == ids and (mask is None or list(map(bool, mask)) == tokens.trained)
        for tokens, (ids, mask) in zip(ours, peer, strict=True)
    )
    tokens = sum(len(row.input_ids) for row in ours)
    cells: list[str] = []
    medians: list[tuple[float, float]] = []
    for pairs in times.values():
        wall, cpu = zip(*pairs, strict=True)
        medians.append((statistics.median(wall), statistics.median(cpu)))
        cells.append(f"{medians[-1][0]:.2f} ({min(wall):.2f} to {max(wall):.2f}), CPU {medians[-1][1]:.2f}")
    ratios = [other / mine for mine, other in zip(*medians, strict=True)]
    shown = f"{ratios[0]:.1f} (CPU {ratios[1]:.1f})"
    return f"| {kind} | {len(rows):,} | {tokens:,} | {' | '.join(cells)} | {shown} | {same:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=34, help="how often each of the sample's 600 rows is used")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    options = parser.parse_args()
    import torch
    import trl

    torch.set_num_threads(1)
    print(f"{platform.machine()}, Python {platform.python_version()}, TRL {trl.__version__}")
    print("seconds, median (range), and CPU seconds\n")
    print("| rows | number | tokens | lora_med | TRL | ratio | rows alike |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            print(compare(kind, options.repeat, options.rounds, folder), flush=True)


if __name__ == "__main__":
    main()
