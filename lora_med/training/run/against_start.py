"""How the adapter that a run chose compares on validation with step 0, by the metric that chose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from lora_med.adapters.store.on_validation import OnValidation, compare_losses
from lora_med.training.run.item_scores import read_answers
from lora_med.training.step.task_eval import ValidationTask


def with_verdict(
    scores: dict[str, Any], history: Sequence[Mapping[str, Any]], task: ValidationTask | None, output_dir: Path
) -> dict[str, Any]:
    """`scores` with the value at step 0 and the verdict; as they are where step 0 was not measured.

    Rank 0 compares, since it holds the items' answers; every process must call it, and gets the same.

    Args:
        task: the task that was scored during the run, which may have chosen the adapter; None for none.
    """
    result: list[Any] = [_compared(scores, history, task, output_dir)]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(result, src=0)
    return result[0]


def _compared(
    scores: dict[str, Any], history: Sequence[Mapping[str, Any]], task: ValidationTask | None, output_dir: Path
) -> dict[str, Any]:
    chosen: dict[str, Any] = scores.get("validation", {})
    metric = next((name for name in chosen if name.startswith("eval_")), None)
    if metric is None:
        return scores
    start = next((entry[metric] for entry in history if metric in entry and entry["step"] == 0), None)
    if start is None:
        return scores
    if task is None or not task.chooses:
        comparison = OnValidation(metric, start, chosen[metric], compare_losses(start, chosen[metric]))
    else:
        answers = read_answers(output_dir)
        if not {0, chosen["step"]} <= answers.keys():
            return scores
        interval, verdict = task.compare(answers[0], answers[chosen["step"]])
        comparison = OnValidation(metric, start, chosen[metric], verdict, interval, task.items)
    return {**scores, "validation": {**chosen, **comparison.as_json()}}
