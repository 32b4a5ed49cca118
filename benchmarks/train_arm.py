"""One arm of benchmarks/train.py, in a process of its own: python train_arm.py ARM MODEL ROWS STEPS BATCH OPTIONS

Trains LoRA (r=16 on all linear layers) on rows of `{"input_ids", "trained"}`, in the order of the file, for some steps
and prints one JSON line: real tokens per second from the second step on (padding never counts), and the peak memory of
the process. The arms "check" and "bound" print what train.py describes. OPTIONS is JSON: {"dtype", "quantization",
"layers", "dropout", "cache_frozen", "packing", "save"}: `layers` those that are adapted, `packing` whether rows are
filled with several documents, `save` a file for the trained weights. The trainers of the arms are in trainers.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from trainers import DEFAULTS, our_trainer, trl_trainer

# Peers run this file in environments of their own, where lora_med is not installed: nothing of it is imported here.
PEAK = "VmHWM:"
STATUS = Path("/proc/self/status")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows in the order of the file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def peak_mb() -> int:
    """The largest resident memory of this process so far, in MiB."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(PEAK):
            return int(line.split()[1]) // 1024
    return 0


class Clock:
    """Seconds and real tokens of each step, warm-up included; `report` leaves the first out."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.steps: list[tuple[float, int]] = []
        self.first_step_seconds = 0.0
        self._start = 0.0
        self._tokens = 0

    def callback(self) -> Any:
        """A TrainerCallback that runs this clock."""
        from transformers import TrainerCallback

        clock = self

        class Ticks(TrainerCallback):
            def on_step_begin(self, *arguments: Any, **rest: Any) -> None:
                clock._start, clock._tokens = time.perf_counter(), 0

            def on_step_end(self, *arguments: Any, **rest: Any) -> None:
                now = time.perf_counter()
                clock.steps.append((now - clock._start, clock._tokens))

        return Ticks()

    def count(self, tokens: int) -> None:
        """Add to the tokens of this step."""
        self._tokens += tokens

    def report(self) -> dict[str, Any]:
        """Tokens per second over all steps but the first, and each step's own."""
        seconds = sum(duration for duration, _ in self.steps[1:])
        tokens = sum(count for _, count in self.steps[1:])
        return {
            "tokens_per_second": round(tokens / seconds, 1),
            "tokens": tokens,
            "steps": [round(count / duration, 1) for duration, count in self.steps],
            "step_seconds": [round(duration, 4) for duration, _ in self.steps],
            "step_tokens": [count for _, count in self.steps],
            "first_step_seconds": round(self.steps[0][0], 2),
            "peak_mb": peak_mb(),
        }


def check(model: str, rows: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
    """One batch and an adapter that is not zero: how much our loss and gradient differ from TRL's.

    Also the loss of TRL's model before training, when the adapter is zero, and how many weights are trained.
    """
    import torch

    from lora_med.training.step.fast_layers import fast_layers

    losses_and_gradients = []
    untrained = 0.0
    for train in (trl_trainer, our_trainer):
        trainer = train(model, rows[:4], 1, 4, options)
        if train is trl_trainer:
            untrained = _mean_loss(trainer)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in sorted(trainer.model.named_parameters()):
            if "lora_" in name:
                parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))  # drawn on the CPU
        (batch,) = list(trainer.get_train_dataloader())
        trainer.model.train()
        trainer.model.zero_grad()
        inputs = trainer._prepare_inputs(batch)
        count = int((inputs["labels"][:, 1:] != -100).sum())
        ours = train is our_trainer  # as in its `train`
        with fast_layers(trainer.model, trainer.args, trainer.settings) if ours else nullcontext():
            loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(count))
            loss.backward()
        named = sorted(trainer.model.named_parameters())
        gradient = torch.cat([weight.grad.flatten().float() for name, weight in named if "lora_" in name])
        losses_and_gradients.append((float(loss.detach()), gradient))
        del trainer
    (their_loss, their_gradient), (our_loss, our_gradient) = losses_and_gradients
    cosine = torch.nn.functional.cosine_similarity(their_gradient.double(), our_gradient.double(), dim=0)
    return {
        "loss_difference": abs(our_loss - their_loss) / their_loss,
        "gradient_difference": float((our_gradient - their_gradient).norm() / their_gradient.norm()),
        "cosine": float(cosine),
        "tokens": count,
        "untrained_loss": untrained,
        "trained": their_gradient.numel(),
    }


def _mean_loss(trainer: Any) -> float:
    """The loss of the first batch in evaluation, by the model's own code."""
    import torch

    (batch,) = list(trainer.get_train_dataloader())
    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.model(**trainer._prepare_inputs(batch)).loss)


def bound(model: str, rows: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
    """How fast the matrix products of one step run alone, each shape as often as the step needs it."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, options["dtype"]))
    tokens = sum(len(row["input_ids"]) for row in rows[-4:])  # the last batch, which the arms are timed on
    labeled = sum(sum(row["trained"]) for row in rows[-4:])
    products: dict[tuple[int, int, int], int] = {}
    for name, module in loaded.named_modules():
        if isinstance(module, torch.nn.Linear):
            outputs, inputs = module.weight.shape
            count = labeled if name == "lm_head" else tokens
            for shape in ((count, inputs, outputs), (count, outputs, inputs)):  # forward, and the input's gradient
                products[shape] = products.get(shape, 0) + 1
    seconds = operations = 0.0
    for (count, inner, outer), times in products.items():
        left = torch.randn(count, inner, dtype=loaded.dtype)
        right = torch.randn(outer, inner, dtype=loaded.dtype).t()
        measured = []
        for _ in range(5):
            started = time.perf_counter()
            left @ right
            measured.append(time.perf_counter() - started)
        seconds += sorted(measured)[2] * times
        operations += 2.0 * count * inner * outer * times
    return {"tokens_per_second": tokens / seconds, "gflops": operations / seconds / 1e9}


def main() -> None:
    arm, model, rows_file, steps, batch, given_options = sys.argv[1:]
    options = {**DEFAULTS, **json.loads(given_options)}
    rows = read_rows(Path(rows_file))
    started = time.perf_counter()
    if arm in ("check", "bound"):
        print(json.dumps((check if arm == "check" else bound)(model, rows, options)))
        return
    if arm == "ours-4bit":
        options["quantization"] = "4bit"
    clock = Clock()
    if arm.startswith("ours"):
        trainer = our_trainer(model, rows, int(steps), int(batch), options, clock=clock)
    else:
        trainer = trl_trainer(model, rows, int(steps), int(batch), options, clock=clock, best=arm == "trl-best")
    trainer.add_callback(clock.callback())
    trainer.train()
    if "save" in options:
        import torch

        trained = {name: weight.detach() for name, weight in trainer.model.named_parameters() if weight.requires_grad}
        torch.save(trained, options["save"])
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    total_seconds = round(time.perf_counter() - started, 1)
    report = {"arm": arm, **clock.report(), "losses": losses, "whole_seconds": total_seconds}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
