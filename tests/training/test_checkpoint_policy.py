"""Which validation counts, what it saves, and when it ends the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lora_med.config.schema import TrainSettings
from lora_med.training.run.checkpoint_policy import CheckpointPolicy, choose_policy


def state(step: int, best: float | None = None) -> Any:
    return SimpleNamespace(global_step=step, best_metric=best, best_global_step=None, log_history=[])


def control() -> Any:
    return SimpleNamespace(should_save=False, should_training_stop=False, should_log=False, should_evaluate=False)


def validated(policy: CheckpointPolicy, at: Any, value: float) -> Any:
    flags = control()
    at.log_history.append({"eval_loss": value, "step": at.global_step})
    policy.on_evaluate(None, at, flags, metrics={"eval_loss": value})
    return flags


def test_a_new_best_is_saved_and_a_tie_is_not() -> None:
    policy = CheckpointPolicy("eval_loss", greater_is_better=False, patience=None)
    policy.on_train_begin(None, None, None)
    at = state(3)
    assert validated(policy, at, 2.0).should_save
    assert (at.best_metric, at.best_global_step) == (2.0, 3)
    at.global_step = 6
    assert not validated(policy, at, 2.0).should_save
    assert validated(policy, at, 1.5).should_save
    assert (at.best_metric, at.best_global_step) == (1.5, 6)


def test_the_validation_of_the_base_chooses_nothing() -> None:
    policy = CheckpointPolicy("eval_loss", greater_is_better=False, patience=None)
    policy.on_train_begin(None, None, None)
    at = state(0)
    assert validated(policy, at, 1.0) == control()
    assert at.best_metric is None


def test_a_validation_by_hand_after_the_run_chooses_nothing() -> None:
    policy = CheckpointPolicy("eval_loss", greater_is_better=False, patience=None)
    policy.on_train_begin(None, None, None)
    policy.on_train_end(None, None, None)
    at = state(9, best=2.0)
    assert validated(policy, at, 1.0) == control()
    assert at.best_metric == 2.0


@pytest.mark.parametrize("greater_is_better", [False, True])
def test_the_run_ends_after_as_many_validations_without_a_better_one_as_patience_says(greater_is_better: bool) -> None:
    policy = CheckpointPolicy("eval_loss", greater_is_better=greater_is_better, patience=2)
    policy.on_train_begin(None, None, None)
    at, sign = state(0), -1 if greater_is_better else 1
    stops = []
    for at.global_step, value in enumerate([3.0, 2.0, 2.5, 2.2], start=1):
        stops.append(validated(policy, at, sign * value).should_training_stop)
    assert stops == [False, False, False, True]


def test_other_metrics_are_not_judged_and_without_validation_nothing_is() -> None:
    flags = control()
    CheckpointPolicy("eval_f1", greater_is_better=True, patience=1).judge({"eval_loss": 1.0}, state(1), flags)
    policy = choose_policy(TrainSettings(), None, validates=False)
    policy.judge({"eval_loss": 1.0}, state(1), flags)
    assert flags == control()
    assert policy.scores(state(1)) == {}


def test_a_log_comes_with_every_checkpoint() -> None:
    policy, flags = CheckpointPolicy(None, greater_is_better=False, patience=None), control()
    policy.on_step_end(None, None, flags)
    assert not flags.should_log
    flags.should_save = True
    policy.on_step_end(None, None, flags)
    assert flags.should_log
