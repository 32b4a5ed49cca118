"""Each recipe under FSDP2 on two CPU processes: the adapter and the losses of one process, and an exact resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

import lora_med
from lora_med.config.parse import parse
from lora_med.training.run.callbacks import read_metrics
from lora_med.training.trainer import AdapterTrainer
from tests.training.fsdp_ranks import run_sharded_ranks
from tests.training.support import fork, wait

WITHIN = 5e-6
STEPS = ["train.max_steps=3", "train.logging_steps=1", "lora.lora_dropout=0", "train.learning_rate=5e-4"]
TEXT = ["quickstart_pubmed", "data.max_records=40", "train.per_device_train_batch_size=2"]
QUESTIONS = ["quickstart_pubmedqa", "data.max_records=40", "train.per_device_train_batch_size=2"]
TAGS = ["micro_tags", "data.max_records=24", "train.per_device_train_batch_size=2", "lora.head_dropout=0"]
FLOAT32 = ["model.load_in_4bit=false", "model.dtype=float32"]
CASES = {
    "text in 4 bits, packed": [*TEXT, "train.packing=true"],
    "questions in float32": [*QUESTIONS, *FLOAT32],
    "tags in float32": [*TAGS, *FLOAT32],
}
LONG = {
    "text in float32": [*TEXT, *FLOAT32],
    "questions in 4 bits": QUESTIONS,
    "tags in 4 bits": TAGS,
    "shared prefixes": [*QUESTIONS, "train.share_context=true"],
    "DoRA": [*QUESTIONS, "lora.use_dora=true"],
    "PiSSA": [*QUESTIONS, *FLOAT32, "lora.init_lora_weights=pissa"],
    "activations recomputed": [*QUESTIONS, "train.gradient_checkpointing=true"],
    "streamed": [*TEXT, "data.streaming=true"],
    "scored while it trains": [*QUESTIONS, "evaluate.eval_steps=2", "evaluate.max_eval_samples=6"],
}


def train(folder: Path, case: list[str], processes: int, *more: str) -> None:
    """One run of a case: the rows of a step are the same for any number of processes."""
    config, *settings = case
    rows = next(setting for setting in settings if "per_device_train_batch_size" in setting)
    size = int(rows.partition("=")[2]) * 2 // processes
    places = [f"train.output_dir={folder / 'run'}", f"adapter.store={folder / 'adapters'}", "adapter.name=it"]
    batch = f"train.per_device_train_batch_size={size}"
    lora_med.train(parse(config, [*settings, *STEPS, *places, batch, "adapter.publish_worse=true", *more]))


def trained(folder: Path) -> tuple[dict[str, torch.Tensor], list[float]]:
    losses = [line["loss"] for line in read_metrics(folder / "run") if "loss" in line]
    return load_file(folder / "adapters/it/adapter_model.safetensors"), losses


def check_equal(folder: Path, case: list[str]) -> None:
    """Two processes in shards, against one process without."""
    assert wait(fork(lambda: train(folder / "one", case, 1), folder / "error.txt")) == 0
    codes = run_sharded_ranks(2, lambda: all_in_shards(lambda: train(folder / "two", case, 2)), folder)
    assert codes == [0, 0], (folder / "error-0.txt").read_text()
    (one, losses_of_one), (two, losses_of_two) = trained(folder / "one"), trained(folder / "two")
    assert one.keys() == two.keys() and len(losses_of_one) == 3
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < WITHIN
    assert losses_of_two == pytest.approx(losses_of_one, abs=1e-4)


def all_in_shards(work: Callable[[], Any]) -> None:
    """Run `work`, and make sure that every parameter is a shard in its last two steps.

    Before the first, an evaluation has left the root's parameters whole, as FSDP2 does after a forward pass.
    """
    step, seen = AdapterTrainer.training_step, []

    def watched(self: AdapterTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(all(isinstance(value, DTensor) for value in self.model_wrapped.parameters()))
        return step(self, *arguments, **options)

    AdapterTrainer.training_step = watched
    work()
    assert seen[-2:] == [True, True]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_recipe_in_shards_trains_the_adapter_of_one_process(case: list[str], tmp_path: Path) -> None:
    check_equal(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG.values(), ids=LONG)
def test_every_way_to_train_is_the_same_in_shards(case: list[str], tmp_path: Path) -> None:
    check_equal(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [TEXT, QUESTIONS, TAGS], ids=["text", "questions", "tags"])
def test_a_run_in_shards_that_was_killed_ends_bit_identical(case: list[str], tmp_path: Path) -> None:
    saving = ("train.max_steps=4", "train.save_steps=2", "lora.lora_dropout=0.1")

    def killed() -> None:
        kill_after(3)
        train(tmp_path / "killed", case, 2, *saving)

    assert run_sharded_ranks(2, lambda: train(tmp_path / "whole", case, 2, *saving), tmp_path / "a") == [0, 0]
    assert 0 not in run_sharded_ranks(2, killed, tmp_path / "b")
    assert run_sharded_ranks(2, lambda: train(tmp_path / "killed", case, 2, *saving), tmp_path / "c") == [0, 0]
    whole, again = (tmp_path / name / "adapters/it/adapter_model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == again.read_bytes()


@pytest.mark.slow
def test_machines_with_disks_of_their_own_share_a_model_in_shards(tmp_path: Path) -> None:
    """Killed between two checkpoints, and resumed: the second machine gets the checkpoint from the first."""
    saving = ("train.max_steps=4", "train.save_steps=2")

    def apart(number_of_steps: int | None = None) -> None:
        number = os.environ["RANK"]
        os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", GROUP_RANK=number)
        if number_of_steps is not None and number == "1":
            kill_after(number_of_steps)
        train(tmp_path / number, QUESTIONS, 2, *saving)

    assert wait(fork(lambda: train(tmp_path / "one", QUESTIONS, 1, *saving), tmp_path / "error.txt")) == 0
    first, second = run_sharded_ranks(2, lambda: apart(3), tmp_path / "a")
    assert (first, second) == (75, -signal.SIGKILL), (tmp_path / "a/error-0.txt").read_text()
    assert "process 1 on" in (tmp_path / "a/error-0.txt").read_text()
    assert run_sharded_ranks(2, apart, tmp_path / "b") == [0, 0], (tmp_path / "b/error-1.txt").read_text()
    (one, _), (two, _) = trained(tmp_path / "one"), trained(tmp_path / "0")
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < WITHIN


@pytest.mark.slow
def test_processes_that_differ_do_not_share_a_model_in_shards(tmp_path: Path) -> None:
    def differing() -> None:
        rate = "1e-5" if os.environ["RANK"] == "1" else "2e-3"
        train(tmp_path / "run", QUESTIONS, 2, f"train.learning_rate={rate}")

    assert run_sharded_ranks(2, differing, tmp_path) == [76, 76]
    assert "train.learning_rate: 0.002 in process 0" in (tmp_path / "error-0.txt").read_text()


def kill_after(steps: int) -> None:
    """Let this process be killed in the step after so many."""
    step = AdapterTrainer.training_step

    def until(self: AdapterTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
        if self.state.global_step == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *arguments, **options)

    AdapterTrainer.training_step = until
