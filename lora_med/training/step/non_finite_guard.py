"""The last decision before each optimizer step: stop at a loss or gradient that is not finite, or on request."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from lora_med.errors import DependencyMissingError, DivergedError
from lora_med.training.run.checkpoints import newest_name
from lora_med.training.run.stopping import StopRequest, agree


class StepGuard(TrainerCallback):
    """Judges the loss and the gradient norm of each step; all processes take the same decision.

    `stop_request` is the user's wish to stop. `stopping` is true once the run ends because of it.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.stop_request = StopRequest()
        self.stopping = False
        self.losses: list[torch.Tensor] = []  # of the micro-batches of this step
        self.gradient_norm: Any = None
        self.scaled = False

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Raise or request a stop before the optimizer changes a weight.

        Raises:
            DivergedError: the loss or the gradient norm of this step is not finite.
            DependencyMissingError: transformers did not report a gradient norm, so nothing was judged.
        """
        if self.gradient_norm is None or not self.losses:
            raise DependencyMissingError("this version of transformers takes a step without reporting a gradient norm")
        loss, norm = torch.stack(self.losses).sum(), float(self.gradient_norm)
        self.losses.clear()
        self.gradient_norm = None
        # In float16 a scaler skips the steps whose gradients are infinite.
        finite = bool(torch.isfinite(loss)) and (self.scaled or math.isfinite(norm))
        bad, stop = agree([not finite, self.stop_request.requested], loss.device)
        if bad:
            raise self.diverged(f"the loss is {float(loss):g} and the gradient norm {norm:g}", args, state)
        if stop and state.global_step + 1 < state.max_steps:  # the last step ends the run by itself
            self.stopping = control.should_training_stop = control.should_save = True

    def diverged(self, what: str, args: Any, state: Any) -> DivergedError:
        """The error for a step that must not be taken; it names the last good checkpoint."""
        checkpoint = newest_name(self.output_dir)
        remains = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
        return DivergedError(
            f"{what} at step {state.global_step + 1}; the step was not taken",
            where=str(self.output_dir),
            fix=f"{remains}; lower train.learning_rate (now {args.learning_rate:g}) and choose another output_dir",
        )
