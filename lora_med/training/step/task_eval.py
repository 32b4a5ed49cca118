"""Scoring a task between two steps, in a way that leaves the steps bit-identical."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from transformers import TrainerCallback

from lora_med.errors import DivergedError, LoraMedError
from lora_med.metrics.significance import Verdict
from lora_med.processes.together import mark
from lora_med.training.rows.batches import Share
from lora_med.training.run.item_scores import add_answers, forget_after

ITEMS = "eval_items"  # in the log, the field that distinguishes a scoring from a validation


class ValidationTask(Protocol):
    """Items to score an adapter on every `every` steps; any process can answer any of them.

    `metric` is the score that matters; with `chooses` it decides which adapter is published. `digest` identifies the
    items.
    """

    @property
    def metric(self) -> str: ...
    @property
    def lower_is_better(self) -> bool: ...
    @property
    def every(self) -> int: ...
    @property
    def chooses(self) -> bool: ...
    @property
    def items(self) -> int: ...
    @property
    def digest(self) -> str: ...

    def answers(self, model: Any, indices: Sequence[int], /) -> list[Any]:
        """The model's answers to the items at `indices`; they can be pickled."""
        ...

    def scores(self, answers: Sequence[Any]) -> dict[str, float]:
        """Scores by name, from the answers to all items in order."""
        ...

    def compare(self, before: Sequence[Any], after: Sequence[Any]) -> tuple[tuple[float, float] | None, Verdict]:
        """The 95% interval of the change in `metric` between two lists of answers to all items, and its verdict."""
        ...


def due(validation_task: ValidationTask, state: Any) -> bool:
    """Whether the step just taken is to be scored and was not scored yet; the last step of the run always is."""
    step = state.global_step
    scored = any(ITEMS in entry and entry["step"] == step for entry in state.log_history)
    return not scored and (step % validation_task.every == 0 or step == state.max_steps)


@contextlib.contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Put the model into evaluation mode; on exit every module's mode and all random states are as before."""
    training = [module for module in model.modules() if module.training]
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)


def all_answers(validation_task: ValidationTask, model: Any, share: Share, *, sharded: bool) -> list[Any]:
    """The answers to every item, on every process.

    Each process answers its share of the items. With a model in shards, each answers all of them: a forward pass needs
    every process.

    Raises:
        LoraMedError: what any process raised.
    """
    indices = range(validation_task.items) if sharded else range(share.rank, validation_task.items, share.processes)
    try:
        own: Any = validation_task.answers(model, indices)
    except LoraMedError as error:
        own = error
    mark("collecting scores")
    gathered: list[Any] = [own]
    if share.processes > 1:
        gathered = [None] * share.processes
        dist.all_gather_object(gathered, own)
    for answers in gathered:
        if isinstance(answers, LoraMedError):
            raise answers
    if sharded:
        return gathered[0]  # the same answers on every process, so that all take the same decision
    return [gathered[index % share.processes][index // share.processes] for index in range(validation_task.items)]


class TaskEvaluation(TrainerCallback):
    """Scores the task before the first step and after every `every` steps, and lets the checkpoint policy judge it."""

    def __init__(self, task: ValidationTask, trainer: Any) -> None:
        self.task = task
        self.trainer = trainer
        self.keeps_answers = task.chooses

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Score the base, in a run that does not resume: what the chosen adapter is compared with."""
        if self.keeps_answers and state.is_world_process_zero:
            forget_after(self.trainer.output_dir, state.global_step)
        if args.eval_on_start:
            self.scores(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Score the adapter, where it is due; a log line follows, as at every checkpoint."""
        if due(self.task, state):
            self.trainer.policy.judge(self.scores(args, state), state, control)
            control.should_log = True

    def scores(self, args: Any, state: Any) -> dict[str, float]:
        """The task's scores of the adapter as it is now, logged as `eval_<name>`.

        Raises:
            DivergedError: the score that matters is not finite.
        """
        started, trainer, task = time.perf_counter(), self.trainer, self.task
        # FSDP gathers weights where the whole model is called; elsewhere the model inside scores options at once.
        inner = trainer.accelerator.unwrap_model(trainer.model).get_base_model()
        model: Any = trainer.model_wrapped if trainer.is_fsdp_enabled else inner
        with undisturbed(trainer.model), trainer.compute_loss_context_manager():
            try:
                answers = all_answers(task, model, trainer.share, sharded=trainer.sharded)
                scores = task.scores(answers)
            except DivergedError as error:
                raise trainer.guard.diverged("the score of a validation item is not finite", args, state) from error
        if not math.isfinite(scores[task.metric]):
            raise trainer.guard.diverged(f"the validation {task.metric} is not finite", args, state)
        if self.keeps_answers and state.is_world_process_zero:
            add_answers(trainer.output_dir, state.global_step, answers)
        metrics = {f"eval_{name}": value for name, value in scores.items()}
        trainer.log({**metrics, ITEMS: task.items, "eval_seconds": round(time.perf_counter() - started, 3)})
        return metrics
