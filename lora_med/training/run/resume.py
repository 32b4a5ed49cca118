"""Where a run continues from: the newest complete checkpoint of the same run, or the start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_med.errors import OutputError, SettingsError
from lora_med.training.rows.batches import Share
from lora_med.training.rows.training_rows import TrainingRows
from lora_med.training.run.checkpoint_sending import from_first
from lora_med.training.run.checkpoints import Checkpoint, differences, newest, newest_name
from lora_med.training.step.task_eval import ValidationTask


def full_identity(
    fields: Mapping[str, Any], rows: TrainingRows, share: Share, task: ValidationTask | None
) -> dict[str, Any]:
    """All that a resumed run must share: `fields`, the number of processes, the rows, and a task that chooses."""
    identity: dict[str, Any] = json.loads(json.dumps({**fields, "processes": share.processes}))
    digest = rows.digest()
    if digest is not None:
        identity["the training rows (SHA-256)"] = digest
    if task is not None and task.chooses:
        identity["evaluate.metric_for_best_model"] = task.metric
        identity["the items to choose by (SHA-256)"] = task.digest
    return identity


def find_resume(output_dir: Path, identity: dict[str, Any], *, resume: str) -> Checkpoint | None:
    """The checkpoint to continue from, None to start from zero; rank 0 searches, all processes get its answer.

    Raises:
        OutputError: there is a checkpoint and `resume` is "never".
        SettingsError: the checkpoint is of another run; the message names each field with both values.
    """
    return from_first(lambda: _search(output_dir, identity, resume))


def refuse_used(output_dir: Path, resume: str) -> None:
    """Refuse a folder with a checkpoint where `resume` is "never"; reads only the presence of COMMIT.json."""
    name = newest_name(output_dir) if resume == "never" and output_dir.is_dir() else None
    if name is not None:
        raise OutputError(
            f"{name} of an earlier run exists and train.resume is never",
            where=str(output_dir),
            fix="choose another train.output_dir, or set train.resume=auto to continue",
        )


def _search(output_dir: Path, identity: dict[str, Any], resume: str) -> Checkpoint | None:
    checkpoint = newest(output_dir)
    if checkpoint is None:
        return None
    refuse_used(output_dir, resume)
    changed = differences(checkpoint.identity, identity)
    if changed:
        raise SettingsError(
            f"the run in this folder, at step {checkpoint.step}, is another one:\n  " + "\n  ".join(changed),
            where=str(output_dir),
            fix="choose another train.output_dir for the new run, or set the fields back to resume the old one",
        )
    return checkpoint
