"""python benchmarks/tagging.py --data ../shared/data [--base micro] [--rounds 5]: a tagger's texts, padded or not.

Both arms train the same tagger (r=16, all linear layers, no dropout) for six steps of eight BC5CDR texts in the same
order, in alternating runs of one thread: with padded rows (attention sdpa), and end to end, as the recipe takes them.
CPU seconds of the training are counted, and the tokens of the texts.

Correctness check: the largest relative difference of a step's loss.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import Figure, machine, own_dtype, parser_for, save_figures, spread

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
LABELS = ("O", "B-Chemical", "I-Chemical", "B-Disease", "I-Disease")
FILE = "bc5cdr/CDR_DevelopmentSet.PubTator.txt"
TEXTS, ROWS, STEPS = 48, 8, 6


def train(base_folder: str, dtype: str, attention: str, records: Sequence[Any]) -> tuple[float, list[float]]:
    """Tokens per CPU second of a training, and the loss of each step."""
    from lora_med.adapters.runtime.attach import attach_new
    from lora_med.config.schema import LoraSettings, TrainSettings
    from lora_med.models.tagging import load_tagger
    from lora_med.training.run.callbacks import read_metrics
    from lora_med.training.tag_trainer import TagTrainer, read_tagged

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(
            output_dir=folder, max_steps=STEPS, per_device_train_batch_size=ROWS, logging_steps=1, max_length=1024
        )
        base = load_tagger(base_folder, LABELS, dtype=dtype, attention=attention, head_dropout=0.0)
        rows = read_tagged(records, base, settings).rows
        model = attach_new(base, LoraSettings(lora_dropout=0.0), seed=0)
        trainer = TagTrainer(model, base, settings, train=rows)
        started = time.process_time()
        trainer.train()
        seconds = time.process_time() - started
        losses = [line["loss"] for line in read_metrics(Path(folder)) if "loss" in line]
    return sum(len(row.input_ids) for row in rows) / seconds, losses


def main() -> None:
    """Measure, print and save."""
    parser = parser_for(__doc__)
    parser.add_argument("--base", default="micro")
    options = parser.parse_args()
    import torch

    from lora_med.config.data_settings import DataSettings
    from lora_med.data.corpus import open_corpus

    torch.set_num_threads(1)
    load, dtype = os.getloadavg()[0], own_dtype(options.dtype)
    corpus = open_corpus(DataSettings(source="bc5cdr", paths=[str(options.data / FILE)], validation_share=0))
    records = list(corpus.train)[:TEXTS]
    speeds: dict[str, list[float]] = {"sdpa": [], "auto": []}
    losses: dict[str, list[float]] = {}
    for turn in range(options.rounds):
        for attention in list(speeds)[:: -1 if turn % 2 else 1]:
            speed, losses[attention] = train(options.base, dtype, attention, records)
            speeds[attention].append(speed)
            print(json.dumps({"attention": attention, "tokens a CPU second": round(speed, 1)}), flush=True)
    apart = max(abs(one / other - 1) for one, other in zip(*losses.values(), strict=True))
    ratios = tuple(one / other for one, other in zip(speeds["auto"], speeds["sdpa"], strict=True))
    check = f"losses within {apart:.1e}"
    print(f"end to end {spread(speeds['auto'], 1)} against padded {spread(speeds['sdpa'], 1)} tokens a CPU second")
    print(f"{spread(ratios, 2)} times; {check}; {dtype}; load average {load:.1f} before; {machine()}")
    save_figures("tagging", [Figure(f"taggers end to end ({dtype})", ratios, "times", "at least 1", check)])


if __name__ == "__main__":
    main()
