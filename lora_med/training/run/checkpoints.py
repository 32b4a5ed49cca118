"""Checkpoints that are complete or do not count.

transformers writes a checkpoint file by file, so a kill may leave a torn one. It also deletes any folder that looks
like an old checkpoint. Here a checkpoint counts once it holds COMMIT.json: the name, size and SHA-256 of every file,
the step, and the identity of the run. That file is written last, by rename, after everything else is on disk. Only
committed checkpoints are rotated or resumed; the rest is moved aside, never deleted.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError, LoraMedError
from lora_med.files import disk_errors, read_json, sha256_file, sync, write_json
from lora_med.folders import sync_tree
from lora_med.run import versions

COMMIT = "COMMIT.json"
TORN = "torn"
TORCH_WRITER = "PytorchStreamWriter failed"  # in the message of torch.save when it cannot write
NEEDED = ("adapter_model.safetensors", "trainer_state.json")
_NAME = re.compile(r"checkpoint-(\d+)")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint: its folder, the optimizer step, the run's identity, and whether the run ended there.

    `best` is the folder of the best checkpoint so far; None where nothing chooses one. `versions` are those of the
    libraries that wrote it.
    """

    folder: Path
    step: int
    identity: dict[str, Any]
    finished: bool
    best: Path | None = None
    versions: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def written(folder: Path) -> Iterator[None]:
    """Around what transformers writes into `folder`: a full disk is a DiskError, also from torch's own writer."""
    with disk_errors(folder):
        try:
            yield
        except RuntimeError as error:
            if TORCH_WRITER not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


def commit(folder: Path, *, step: int, identity: dict[str, Any], finished: bool, best: Path | None = None) -> None:
    """Flush every file of `folder` to disk and mark it as complete."""
    with disk_errors(folder):
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, with the Hub token in clear
        sync_tree(folder)
        files = {
            str(path.relative_to(folder)): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != COMMIT
        }
        content = {"step": step, "finished": finished, "best": best.name if best else None, "versions": versions()}
        write_json(folder / COMMIT, {**content, "identity": identity, "files": files})
        sync(folder.parent)


def _names(output_dir: Path) -> list[tuple[int, Path]]:
    """`(step, folder)` of everything named like a checkpoint, oldest first."""
    folders = [(_NAME.fullmatch(path.name), path) for path in output_dir.iterdir() if path.is_dir()]
    return sorted((int(match[1]), path) for match, path in folders if match)


def read_commit(folder: Path, *, verify: bool = True) -> Checkpoint | None:
    """The checkpoint in `folder`, or None if it is torn; `verify` compares every file with its SHA-256."""
    try:
        content = read_json(folder / COMMIT)
        files: dict[str, Any] = content["files"]
        complete = all(name in files for name in NEEDED) and all(
            (folder / name).is_file()
            and (folder / name).stat().st_size == file["bytes"]
            and (not verify or sha256_file(folder / name) == file["sha256"])
            for name, file in files.items()
        )
        best = folder.parent / content["best"] if content["best"] else None
        finished, written_by = bool(content["finished"]), dict(content.get("versions", {}))
        checkpoint = Checkpoint(folder, int(content["step"]), content["identity"], finished, best, written_by)
    except (LoraMedError, OSError, KeyError, TypeError, ValueError):
        return None
    return checkpoint if complete else None


def require_complete(folder: Path) -> Path:
    """`folder`, if the checkpoint in it is complete and unchanged.

    Raises:
        IntegrityError: a file is missing or is not the one that was written.
    """
    if read_commit(folder) is None:
        raise IntegrityError(
            f"{folder.name}, the best checkpoint of this run, is missing or incomplete",
            where=str(folder.parent),
            fix="restore it, or train again in another train.output_dir",
        )
    return folder


def announce(checkpoint: Checkpoint) -> None:
    """Log that a run continues from here, and warn of each library whose version has changed since."""
    logger.info("continuing from step %d", checkpoint.step)
    for line in differences(checkpoint.versions, versions()) if checkpoint.versions else []:
        logger.warning("the steps so far were computed with another version: %s", line)


def newest(output_dir: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies; those that do not are moved to `torn/`, with a warning."""
    if not output_dir.is_dir():
        return None
    good: Checkpoint | None = None
    for _, folder in reversed(_names(output_dir)):
        if good is not None and read_commit(folder, verify=False):
            continue
        checkpoint = read_commit(folder)
        if checkpoint is None:
            _set_aside(folder)
        elif good is None:
            good = checkpoint
    return good


def newest_name(output_dir: Path) -> str | None:
    """Name of the newest committed checkpoint; reads only the presence of COMMIT.json, moves nothing."""
    names = [folder.name for _, folder in _names(output_dir) if (folder / COMMIT).is_file()]
    return names[-1] if names else None


def _set_aside(folder: Path) -> None:
    target = folder.parent / TORN / folder.name
    with disk_errors(folder):
        target.parent.mkdir(exist_ok=True)
        number = 1
        while target.exists():
            number += 1
            target = folder.parent / TORN / f"{folder.name}.{number}"
        os.replace(folder, target)
    logger.warning("%s is incomplete and was moved to %s/%s", folder.name, TORN, target.name)


def rotate(output_dir: Path, *, keep: int, best: Path | None) -> None:
    """Remove committed checkpoints, except the newest `keep`, `best`, and what was best at each of the newest.

    So a run that must continue from an older checkpoint finds the best of that time. Only committed ones are removed.
    """
    committed = [folder for _, folder in _names(output_dir) if (folder / COMMIT).is_file()]
    retained = [read_commit(folder, verify=False) for folder in committed[-keep:]]
    bests = [best, *(checkpoint.best for checkpoint in retained if checkpoint is not None)]
    protected = {folder.name for folder in bests if folder is not None}
    for folder in committed[:-keep]:
        if folder.name in protected:
            continue
        # COMMIT.json goes first: a kill from here on leaves a folder that no longer counts.
        (folder / COMMIT).unlink()
        sync(folder)
        shutil.rmtree(folder, ignore_errors=True)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each field that differs between two identities: `lora.r: 16 then, 8 now`."""
    absent = object()
    return [
        f"{name}: {_show(before.get(name, absent), absent)} then, {_show(now.get(name, absent), absent)} now"
        for name in _ordered([*now, *before])
        if before.get(name, absent) != now.get(name, absent)
    ]


def _ordered(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _show(value: object, absent: object) -> str:
    if value is absent:
        return "not set"
    text = str(value) if not isinstance(value, str) else value
    return text if len(text) <= 80 else text[:77] + "..."
