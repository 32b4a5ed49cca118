"""What a run reports during training: metrics.jsonl, loss.png, and a progress bar or plain lines."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from lora_med.files import disk_errors, sync, write_atomic
from lora_med.processes.together import mark, mark_checkpoint
from lora_med.training.run.loss_plot import draw_loss
from lora_med.training.step.task_eval import ITEMS

METRICS = "metrics.jsonl"
SECONDS_BETWEEN_DRAWINGS = 30
logger = logging.getLogger(__name__)


def read_metrics(output_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a kill cut off is left out."""
    lines = []
    try:
        text = (output_dir / METRICS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


class MetricsFile(TrainerCallback):
    """Appends each log to metrics.jsonl, one object per line, and draws loss.png with the `score`; rank 0 only."""

    def __init__(self, output_dir: Path, score: str | None = None) -> None:
        self.output_dir = output_dir
        self.score = score
        self.drawn = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Remove what a killed run logged after the resumed checkpoint: those steps are computed again."""
        if state.is_world_process_zero:
            valid = [line for line in read_metrics(self.output_dir) if 0 < state.global_step >= line["step"]]
            write_atomic(self.output_dir / METRICS, "".join(_line(entry) for entry in valid))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Append the newest log; the summary that transformers logs at the end is not a step."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            path = self.output_dir / METRICS
            with disk_errors(path), open(path, "a", encoding="utf-8") as handle:
                handle.write(_line({"step": state.global_step, **logs}))

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Draw the curve at a checkpoint, at most every 30 seconds."""
        if state.is_world_process_zero:
            sync(self.output_dir / METRICS)
            if time.monotonic() - self.drawn > SECONDS_BETWEEN_DRAWINGS:
                self._draw()

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Draw the complete curve."""
        if state.is_world_process_zero:
            self._draw()

    def _draw(self) -> None:
        draw_loss(read_metrics(self.output_dir), self.output_dir / "loss.png", score=self.score)
        self.drawn = time.monotonic()


class ProcessMarks(TrainerCallback):
    """Reports the run's progress to its other processes, so that a waiting one can say for whom; the first callback."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The step from which the run goes on, and the checkpoint of that step."""
        step = state.global_step
        mark("before its first step", step=step)
        if step:
            mark_checkpoint(f"checkpoint-{step}", whole=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The batch is there, and the step begins."""
        mark(f"in step {state.global_step + 1}")

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The step is taken; reading the next batch may follow."""
        mark(f"between steps {state.global_step} and {state.global_step + 1}", step=state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """A validation has ended."""
        mark("after a validation")


class Throughput(TrainerCallback):
    """Tokens trained on, and the seconds of the steps, since the last reading; time between steps is not counted."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self.started: float | None = None

    def add(self, tokens: int) -> None:
        """Count the tokens of a micro-batch that is about to be computed; the first one of a step starts the clock."""
        if self.started is None:
            self.started = time.perf_counter()
        self.tokens += tokens

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Stop the clock."""
        if self.started is not None:
            self.seconds += time.perf_counter() - self.started
            self.started = None

    def read(self) -> tuple[int, float]:
        """Tokens of this process and seconds since the last reading; both start again at zero."""
        reading = self.tokens, self.seconds
        self.tokens, self.seconds = 0, 0.0
        return reading


def _line(entry: dict[str, Any]) -> str:
    ordered = {"step": entry["step"], **entry}
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in ordered.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


class ProgressReport(TrainerCallback):
    """On a terminal a bar with tokens per second and the time left, elsewhere one line per log; rank 0 only."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task: Any = None
        self.started = 0.0
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Start the clock, and the bar where there is a terminal."""
        self.started, self.first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero and sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step, numbers="")
            self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Show the newest numbers."""
        if not state.is_world_process_zero or not logs or not {"loss", "eval_loss", ITEMS} & set(logs):
            return
        numbers = _numbers(logs)
        if self.bar is not None:
            self.bar.update(self.task, numbers=numbers)
            return
        done = state.global_step - self.first_step
        left = (time.monotonic() - self.started) / done * (state.max_steps - state.global_step) if done else None
        remaining = "" if left is None else f", {_clock(left)} left"
        logger.info("step %d of %d: %s%s", state.global_step, state.max_steps, numbers, remaining)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Remove the bar from the terminal."""
        self.close()

    def close(self) -> None:
        """Stop the bar, however the training ended."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _numbers(logs: dict[str, Any]) -> str:
    """The numbers of a log for readers; for a scored task, all its scores and their time."""
    if ITEMS in logs:
        scored = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
        items, seconds = scored.pop("items"), scored.pop("seconds")
        scores = ", ".join(f"{name} {value:.4f}" for name, value in scored.items())
        return f"{scores} on {items} validation items in {seconds:.1f} s"
    return ", ".join(
        text.format(logs[name])
        for name, text in (
            ("loss", "loss {:.4f}"),
            ("eval_loss", "validation loss {:.4f}"),
            ("eval_preference_accuracy", "chosen preferred in {:.3f}"),
            ("learning_rate", "learning rate {:.2e}"),
            ("tokens_per_second", "{:,.0f} tokens/s"),
        )
        if name in logs
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
