"""A warning while there is time to stop: the loss stays far above where the run began."""

from __future__ import annotations

import logging
from typing import Any

from transformers import TrainerCallback

FAR = 1.2  # times the loss at the start; learning rates that work stay below it after the warm-up
STAYS = 3  # this many logged losses in a row
logger = logging.getLogger(__name__)


class RisingLoss(TrainerCallback):
    """Warns once if the training loss stays far above its start, and at each validation that is worse than at step 0.

    The start is the validation loss at step 0, or the first logged loss where there is no validation. Both are in every
    checkpoint, so that a resumed run compares alike.
    """

    def __init__(self) -> None:
        self.warned = False

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Compare the newest losses with the start."""
        start = starting_loss(state.log_history)
        if start is None or not logs or state.global_step == 0:
            return
        if logs.get("eval_loss", start) > start:
            logger.warning("the validation loss %.4f is above that at step 0, %.4f", logs["eval_loss"], start)
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry][-STAYS:]
        if "loss" in logs and not self.warned and len(losses) == STAYS and min(losses) > FAR * start:
            self.warned = True
            logger.warning(
                "the loss stays far above its start: %.4f at step %d against %.4f. Ctrl-C stops with a checkpoint; "
                "a lower train.learning_rate in another train.output_dir is the usual remedy",
                losses[-1],
                state.global_step,
                start,
            )


def starting_loss(history: list[dict[str, Any]]) -> float | None:
    """The validation loss at step 0, else the first logged training loss, else None."""
    for entry in history:
        if "eval_loss" in entry and entry["step"] == 0:
            return float(entry["eval_loss"])
    return next((float(entry["loss"]) for entry in history if "loss" in entry), None)
