"""Where a run goes on from: the newest whole checkpoint of the same run, or the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from lora_med.errors import LoraMedError, OutputError, SettingsError
from lora_med.training.run.checkpoints import Checkpoint, differences, newest, newest_name


def find_resume(output_dir: Path, identity: dict[str, Any], *, resume: str, rank: int) -> Checkpoint | None:
    """The checkpoint to go on from, None to start anew; rank 0 looks, all processes get its answer.

    Raises:
        OutputError: there is a checkpoint and `resume` is "never".
        SettingsError: the checkpoint is of another run; the message names each field with both values.
    """
    answer: list[Any] = [None]
    if rank == 0:
        try:
            answer = [_look(output_dir, identity, resume)]
        except LoraMedError as error:
            answer = [error]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(answer, src=0)
    if isinstance(answer[0], LoraMedError):
        raise answer[0]
    return answer[0]


def refuse_used(output_dir: Path, resume: str) -> None:
    """Refuse a folder with a checkpoint where `resume` is "never"; reads marks only."""
    name = newest_name(output_dir) if resume == "never" and output_dir.is_dir() else None
    if name is not None:
        raise OutputError(
            f"{name} of an earlier run is there and train.resume is never",
            where=str(output_dir),
            fix="choose another train.output_dir, or set train.resume=auto to go on",
        )


def _look(output_dir: Path, identity: dict[str, Any], resume: str) -> Checkpoint | None:
    found = newest(output_dir)
    if found is None:
        return None
    refuse_used(output_dir, resume)
    changed = differences(found.identity, identity)
    if changed:
        raise SettingsError(
            f"the run in this folder, at step {found.step}, is another one:\n  " + "\n  ".join(changed),
            where=str(output_dir),
            fix="choose another train.output_dir for the new run, or set the fields back to resume the old one",
        )
    return found
