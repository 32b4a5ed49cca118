"""The stop before a bad step: a loss or a gradient that is not finite, each by itself, and a request to stop."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from lora_med.errors import DivergedError
from lora_med.training.run.callbacks import read_metrics
from lora_med.training.run.checkpoints import newest_name
from lora_med.training.step.non_finite_guard import StepGuard
from tests.training.support import make_trainer, weights

ARGS = SimpleNamespace(learning_rate=1e-2)


def control() -> Any:
    return SimpleNamespace(should_training_stop=False, should_save=False)


def judge(folder: Path, loss: float, norm: float, *, scaled: bool = False, step: int = 3, stop: bool = False) -> Any:
    guard, flags = StepGuard(folder), control()
    guard.losses, guard.gradient_norm, guard.scaled = [torch.tensor(loss)], norm, scaled
    guard.stop_request.requested = stop
    guard.on_pre_optimizer_step(ARGS, SimpleNamespace(global_step=step, max_steps=9), flags)
    return flags


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_finite_loss_with_a_gradient_that_is_not_finite_stops_the_run_before_the_step(
    tmp_path: Path, bad: float
) -> None:
    trainer = make_trainer(tmp_path, save_steps=2, eval_steps=2, logging_steps=1)
    first = next(parameter for parameter in trainer.model.parameters() if parameter.requires_grad)
    first.register_hook(lambda gradient: gradient * bad if trainer.state.global_step == 4 else gradient)
    with pytest.raises(DivergedError, match="at step 5; the step was not taken") as caught:
        trainer.train()
    assert caught.value.exit_code == 78
    assert "the loss is nan" not in caught.value.what
    assert math.isfinite(float(caught.value.what.split("the loss is ")[1].split()[0]))
    assert "the last good checkpoint is checkpoint-4" in str(caught.value.fix)
    assert bool(torch.isfinite(weights(trainer)).all())
    assert [line["step"] for line in read_metrics(tmp_path) if "loss" in line] == [1, 2, 3, 4]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_each_half_by_itself_is_enough(tmp_path: Path, loss: float, norm: float) -> None:
    with pytest.raises(DivergedError):
        judge(tmp_path, loss, norm)


def test_an_infinite_gradient_under_a_scaler_is_not_a_divergence(tmp_path: Path) -> None:
    """In float16 the scaler skips such a step and lowers its factor."""
    assert judge(tmp_path, 1.0, math.inf, scaled=True) == control()
    with pytest.raises(DivergedError):
        judge(tmp_path, math.nan, math.inf, scaled=True)


def test_a_stop_request_saves_and_ends_the_run_but_not_in_its_last_step(tmp_path: Path) -> None:
    assert judge(tmp_path, 1.0, 1.0, stop=True) == SimpleNamespace(should_training_stop=True, should_save=True)
    assert judge(tmp_path, 1.0, 1.0, stop=True, step=8) == control()


def test_an_adapter_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    """Loss and gradient were finite; the optimizer's own arithmetic was not."""
    trainer = make_trainer(tmp_path, save_steps=1, logging_steps=1, validation=[])

    class Poison(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == 2:
                next(one for one in trainer.model.parameters() if one.requires_grad).data[0] = math.nan

    trainer.add_callback(Poison())
    with pytest.raises(DivergedError, match="the adapter holds NaN or infinity"):
        trainer.train()
    assert newest_name(tmp_path) == "checkpoint-2"
