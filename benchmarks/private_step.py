"""python benchmarks/private_step.py [--rounds 7] [--rows 16] [--tokens 256]: a private step beside a plain one.

Both train the same adapter (r=16, all linear layers) on micro, on the same rows of random tokens, one row a patient.
The rounds alternate, and CPU seconds of this process are counted with one thread. A private step also clips each
patient's gradient and adds noise. A plain one also clips the mean gradient. Needs the extra `privacy`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import machine

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.privacy_settings import PrivacySettings
from lora_med.config.schema import LoraSettings, TrainSettings
from lora_med.models.base import load_base
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.private.private_trainer import PrivateTrainer
from lora_med.training.step.fused_lora import fused_lora
from lora_med.training.trainer import AdapterTrainer

PATIENTS = 256


def documents(count: int, longest: int) -> list[Tokens]:
    """Rows of random tokens; the second half of each is trained."""
    generator = random.Random(0)
    rows = []
    for number in range(count):
        length = generator.randint(longest // 2, longest)
        ids = [generator.randrange(5, 4000) for _ in range(length)]
        rows.append(Tokens(str(number), ids, [place >= length // 2 for place in range(length)]))
    return rows


def step_of(trainer: Any, rows: int, *, private: bool) -> Callable[[], None]:
    """One step on the first rows, without the optimizer."""
    loader = trainer.get_train_dataloader()
    batch = loader.collate_fn(loader.dataset.__getitems__(list(range(rows))))
    parameters = [one for one in trainer.model.parameters() if one.requires_grad]

    def step() -> None:
        trainer.guard.losses.clear()
        trainer.model.zero_grad()
        if private:
            trainer.training_step(trainer.model, batch)
            return
        labeled = (batch["labels"] != -100).sum()
        trainer.training_step(trainer.model, dict(batch), labeled)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)

    return step


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the CPU seconds of both steps, and their ratio by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=16, help="rows of a step, and of a pass")
    parser.add_argument("--tokens", type=int, default=256, help="of the longest row")
    parser.add_argument("--quantization", choices=("none", "4bit"), default="none")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    train, trainers = documents(PATIENTS, options.tokens), []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("plain", "private"):
            base = load_base("micro", quantization=options.quantization, dtype=options.dtype)
            model = attach_new(base, LoraSettings(), seed=0)
            settings: dict[str, Any] = {"output_dir": str(Path(folder) / name), "max_steps": 10}
            settings["per_device_train_batch_size"] = options.rows
            if name == "plain":
                trainers.append(AdapterTrainer(model, base, TrainSettings(**settings), train=train))
                continue
            settings["privacy"] = PrivacySettings(epsilon=8, delta=1e-3)
            trainers.append(
                PrivateTrainer(model, base, TrainSettings(**settings), train=train, patients=range(PATIENTS))
            )
        ratios, seconds = [], []
        with fused_lora(trainers[0].model) as trainers[0].groups, fused_lora(trainers[1].model) as trainers[1].groups:
            steps = [step_of(trainer, options.rows, private=trainer is trainers[1]) for trainer in trainers]
            for number in range(options.rounds + 1):
                each = []
                for step in steps:
                    begun = time.process_time()
                    step()
                    each.append(time.process_time() - begun)
                if number:  # the first is a warm-up
                    seconds.append(each)
                    ratios.append(each[1] / each[0])
    plain, private = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(f"plain {plain:.3f} CPU s, private {private:.3f} CPU s a step of {options.rows} rows")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), {options.rounds} rounds")
    print(machine())


if __name__ == "__main__":
    main()
