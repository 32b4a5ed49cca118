"""Scoring a task between two steps, so that the steps do not notice."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

from lora_med.errors import LoraMedError
from lora_med.training.rows.batches import Share

ITEMS = "eval_items"  # in the log, what tells a scoring from a validation


class ValidationTask(Protocol):
    """Items to score an adapter on every `every` steps; any process can answer any of them.

    `metric` is the score that matters; with `chooses` it decides which adapter is kept. `digest` tells these items from
    any others.
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

    def answers(self, model: Any, places: Sequence[int]) -> list[Any]:
        """The model's answers to the items at `places`; they can be pickled."""
        ...

    def scores(self, answers: Sequence[Any]) -> dict[str, float]:
        """Scores by name, from the answers to all items in order."""
        ...


def due(validation_task: ValidationTask, state: Any) -> bool:
    """Whether the step just taken is one to score after; the last one is. The end of an epoch asks a second time."""
    step = state.global_step
    scored = any(ITEMS in entry and entry["step"] == step for entry in state.log_history)
    return not scored and (step % validation_task.every == 0 or step == state.max_steps)


@contextlib.contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Put the model into evaluation; afterwards every module's mode and all random numbers are as before."""
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
    """The answers to every item, on every process; each answers its share, unless a forward pass takes all of them.

    Raises:
        LoraMedError: what any process raised.
    """
    places = range(validation_task.items) if sharded else range(share.rank, validation_task.items, share.processes)
    try:
        own: Any = validation_task.answers(model, places)
    except LoraMedError as error:
        own = error
    gathered: list[Any] = [own]
    if share.processes > 1:
        gathered = [None] * share.processes
        dist.all_gather_object(gathered, own)
    for part in gathered:
        if isinstance(part, LoraMedError):
            raise part
    if sharded:
        return gathered[0]  # one process's, so that all decide alike
    return [gathered[place % share.processes][place // share.processes] for place in range(validation_task.items)]
