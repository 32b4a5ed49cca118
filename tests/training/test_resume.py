"""Kill it, stop it, or let it run: the final adapter is the same to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from lora_med.errors import StoppedError
from lora_med.training.run.callbacks import read_metrics
from tests.training.support import documents, fork, make_trainer, run_ranks, wait, weights

FINAL = "final.pt"


def train(folder: Path) -> None:
    """Twenty steps with dropout, a checkpoint at each, over five epochs whose last batch is short."""
    trainer = make_trainer(
        folder, train=documents(14), num_train_epochs=5, save_steps=1, eval_steps=5, logging_steps=3, dropout=0.2
    )
    trainer.train()
    torch.save(weights(trainer), folder / FINAL)


def start(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return fork(lambda: train(folder), folder / "error.txt")


def interrupt(folder: Path, times: int, draw: random.Random, longest: float) -> list[int]:
    """Start the run `times` times and kill it at a random moment; returns the exit codes."""
    codes = []
    for _ in range(times):
        child = start(folder)
        time.sleep(draw.uniform(0.1, longest))
        os.kill(child, signal.SIGKILL)
        codes.append(wait(child))
    return codes


def curve(folder: Path) -> list[tuple[Any, ...]]:
    return [(line["step"], line.get("loss"), line.get("eval_loss"), line["epoch"]) for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing interrupts, and the seconds it took."""
    folder = tmp_path_factory.mktemp("whole")
    begun = time.monotonic()
    assert wait(start(folder)) == 0
    return folder, time.monotonic() - begun


def check_same(folder: Path, whole: Path) -> None:
    assert wait(start(folder)) == 0, (folder / "error.txt").read_text()
    assert torch.equal(torch.load(folder / FINAL), torch.load(whole / FINAL))
    assert curve(folder) == curve(whole)


@pytest.mark.parametrize(
    ("kills", "seed"),
    [(3, 1), pytest.param(10, 2, marks=pytest.mark.slow), pytest.param(10, 3, marks=pytest.mark.slow)],
)
def test_a_run_killed_at_random_moments_ends_in_the_same_adapter(
    tmp_path: Path, whole: tuple[Path, float], kills: int, seed: int
) -> None:
    folder, seconds = whole
    codes = interrupt(tmp_path, kills, random.Random(seed), seconds / 3)
    assert set(codes) <= {-signal.SIGKILL, 0}
    assert -signal.SIGKILL in codes
    check_same(tmp_path, folder)


def newest_step(folder: Path) -> int:
    steps = [int(path.parent.name.split("-")[1]) for path in folder.glob("checkpoint-*/COMMIT.json")]
    return max(steps, default=0)


def wait_for_step(folder: Path, step: int) -> None:
    while newest_step(folder) < step:
        time.sleep(0.02)


def test_a_stopped_run_commits_the_step_exits_75_and_goes_on(tmp_path: Path, whole: tuple[Path, float]) -> None:
    folder, _ = whole
    for number, step in ((signal.SIGTERM, 2), (signal.SIGINT, 7)):
        child = start(tmp_path)
        wait_for_step(tmp_path, step)
        os.kill(child, number)
        assert wait(child) == 75
        stopped = newest_step(tmp_path)
        assert step <= stopped < 20
        assert f"stopped on request at step {stopped} of 20" in (tmp_path / "error.txt").read_text()
    torn = tmp_path / f"checkpoint-{stopped}" / "optimizer.pt"  # and a disk that lost the end of the newest
    torn.write_bytes(torn.read_bytes()[:-100])
    check_same(tmp_path, folder)
    assert [path.name for path in (tmp_path / "torn").iterdir()] == [f"checkpoint-{stopped}"]


def test_one_process_asked_to_stop_stops_both_and_both_go_on_exactly(tmp_path: Path) -> None:
    def work(folder: Path, stop: bool) -> None:
        trainer = make_trainer(folder, train=documents(14), max_steps=3, eval_steps=3, logging_steps=1)
        trainer.guard.stop_request.requested = stop and os.environ["RANK"] == "1"
        trainer.train()

    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    assert run_ranks(2, lambda: work(stopped, stop=True), stopped) == [75, 75]
    assert newest_step(stopped) == 1
    assert run_ranks(2, lambda: work(stopped, stop=False), stopped) == [0, 0]
    assert run_ranks(2, lambda: work(whole, stop=False), whole) == [0, 0]
    adapter = "checkpoint-3/adapter_model.safetensors"
    assert (stopped / adapter).read_bytes() == (whole / adapter).read_bytes()
    assert curve(stopped) == curve(whole)


def test_a_stop_in_the_last_step_ends_the_run(tmp_path: Path) -> None:
    """Otherwise the run would go on from there with a step that it should not take."""
    options: dict[str, Any] = {"max_steps": 5, "logging_steps": 1, "lr_scheduler_type": "constant"}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    trainer = make_trainer(tmp_path / "stopped", **options)

    class StopInTheLastStep(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            trainer.guard.stop_request.requested = state.global_step == 4

    trainer.add_callback(StopInTheLastStep())
    trainer.train()
    again = make_trainer(tmp_path / "stopped", **options)
    assert again.train() is None
    assert again.state.global_step == 5
    assert torch.equal(weights(again), weights(whole))


def test_a_resumed_run_saves_and_validates_as_often_as_is_set_now(tmp_path: Path) -> None:
    first = make_trainer(tmp_path, max_steps=8, save_steps=2, eval_steps=8, logging_steps=8)
    first.guard.stop_request.requested = True
    with pytest.raises(StoppedError):
        first.train()
    again = make_trainer(tmp_path, max_steps=8, save_steps=3, eval_steps=4, logging_steps=2, save_total_limit=9)
    again.train()
    assert [line["step"] for line in read_metrics(tmp_path) if "eval_loss" in line] == [0, 4, 8]
    assert {"checkpoint-3", "checkpoint-6"} <= {path.name for path in tmp_path.glob("checkpoint-*")}
    assert [line["step"] for line in read_metrics(tmp_path) if "loss" in line] == [1, 2, 3, 4, 6, 8]
