"""Which checkpoint is the best, when one is written, and when a run stops because it no longer improves."""

from __future__ import annotations

import logging
from typing import Any

from transformers import TrainerCallback

from lora_med.config.schema import TrainSettings
from lora_med.training.arguments import best_metric
from lora_med.training.run.stopping import no_longer_improves
from lora_med.training.step.task_eval import ValidationTask

logger = logging.getLogger(__name__)


class CheckpointPolicy(TrainerCallback):
    """Saves at every new best value of `metric`, and stops early after `patience` values without a better one.

    Args:
        metric: full name of the value that chooses the adapter, such as `eval_loss`; None where nothing chooses.
        greater_is_better: the direction of `metric`.
        patience: validations without improvement after which the run stops; None for never.
        items: how many items the metric is measured on, where it is a task's score.
    """

    def __init__(
        self, metric: str | None, *, greater_is_better: bool, patience: int | None, items: int | None = None
    ) -> None:
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.patience = patience
        self.items = items
        self.training = False

    def judge(self, metrics: dict[str, float], state: Any, control: Any) -> None:
        """Compare new metrics with the best so far; those without the metric that chooses change nothing."""
        value = metrics.get(self.metric) if self.metric is not None else None
        if value is None or self.metric is None:
            return
        best = state.best_metric
        if best is None or (value > best if self.greater_is_better else value < best):
            state.best_metric, state.best_global_step = value, state.global_step
            control.should_save = True
        if no_longer_improves(
            state.log_history, self.metric, patience=self.patience, greater_is_better=self.greater_is_better
        ):
            logger.info("stopping early at step %d: no better %s", state.global_step, self.metric)
            control.should_training_stop = control.should_save = True

    def scores(self, state: Any) -> dict[str, Any]:
        """The metric that chose the adapter, its value and its step, as a card holds them; empty without a choice."""
        if state.best_metric is None:
            return {}
        chosen = {str(self.metric): state.best_metric, "step": state.best_global_step}
        if self.items is not None:
            chosen["items"] = self.items
        return {"validation": chosen}

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """From here on, validations count."""
        self.training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Log at every checkpoint, so that the averages of a resumed run equal those of an uninterrupted one."""
        if control.should_save or control.should_evaluate:
            control.should_log = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Judge a validation; the one before the first step is the base's and does not count."""
        if self.training and state.global_step > 0:
            self.judge(rest["metrics"], state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """A later call of `evaluate` changes no choice."""
        self.training = False


def choose_policy(settings: TrainSettings, task: ValidationTask | None, *, validates: bool) -> CheckpointPolicy:
    """The policy of a run: the task's score chooses the adapter if it is set to, else the validation loss."""
    patience = settings.early_stopping_patience
    if task is not None and task.chooses:
        better = not task.lower_is_better
        return CheckpointPolicy(f"eval_{task.metric}", greater_is_better=better, patience=patience, items=task.items)
    metric = best_metric(settings) if validates else None
    return CheckpointPolicy(metric, greater_is_better=False, patience=patience)
