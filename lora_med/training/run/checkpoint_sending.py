"""What process 0 has on its disk, for processes on machines with disks of their own: sent, not looked for.

Process 0 alone writes checkpoints. A file travels in pieces through the process group, so that no file need fit into
memory. Nothing is sent where all machines see the same folder.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lora_med.errors import LoraMedError
from lora_med.files import atomic_stream, write_atomic
from lora_med.processes.launch import own_place, rank
from lora_med.training.run.checkpoints import COMMIT, Checkpoint, read_commit
from lora_med.training.run.stopping import agree

RECEIVED = "received"  # in the output folder of a machine that has no checkpoints
PIECE_BYTES = 32 << 20
Answer = TypeVar("Answer")


def is_joined() -> bool:
    """Whether there are several processes, and they have a process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def from_first(make: Callable[[], Answer]) -> Answer:
    """What `make()` returns in process 0, in every process; an error of ours is raised in every process."""
    answer: list[Any] = [None]
    if rank() == 0:
        try:
            answer = [make()]
        except LoraMedError as error:
            answer = [error]
    if is_joined():
        dist.broadcast_object_list(answer, src=0)
    if isinstance(answer[0], LoraMedError):
        raise answer[0]
    return answer[0]


def sent_bytes(find: Callable[[], Path]) -> bytes:
    """The content of a file of process 0, in every process; `find()` gives its path there, and may raise."""
    return b"".join(_pieces(from_first(find)))


def _pieces(path: Path) -> Iterator[bytes]:
    """The content of a file of process 0, piece by piece, in every process."""
    with open(path, "rb") if rank() == 0 else io.BytesIO() as handle:
        while piece := from_first(lambda: handle.read(PIECE_BYTES)):
            yield piece


def to_every_machine(checkpoint: Checkpoint, output_dir: Path, device: torch.device) -> Checkpoint:
    """A checkpoint of process 0, with its folder as this process finds it.

    A machine that does not have it receives its files into `received/` in its own output folder, which its first
    process writes. `forget_received` removes them.

    Raises:
        OutputError, DiskError: they cannot be written there.
    """
    if not is_joined():
        return checkpoint
    own = output_dir / checkpoint.folder.name
    sent = from_first((checkpoint.folder / COMMIT).read_bytes)
    lacks = not _has(own, sent)
    best = output_dir / checkpoint.best.name if checkpoint.best else None
    if agree([lacks], device)[0]:
        writes = lacks and own_place().local_rank == 0
        if writes:
            shutil.rmtree(output_dir / RECEIVED, ignore_errors=True)
        received = output_dir / RECEIVED / own.name
        _receive(checkpoint.folder, received if writes else None)
        if writes:
            write_atomic(received / COMMIT, sent)
        dist.barrier()
        own = received if lacks else own
    return replace(checkpoint, folder=own, best=best)


def _has(folder: Path, commit: bytes) -> bool:
    try:
        same = (folder / COMMIT).read_bytes() == commit
    except OSError:
        return False
    return same and read_commit(folder) is not None


def _receive(folder: Path, target: Path | None) -> None:
    """Every process takes part; a process with a `target` writes the files there."""
    files = from_first(lambda: [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != COMMIT])
    for path in files:
        pieces = _pieces(path)
        if target is None:
            for _ in pieces:
                pass
            continue
        with atomic_stream(target / path.relative_to(folder)) as handle:
            for piece in pieces:
                handle.write(piece)


def forget_received(output_dir: Path) -> None:
    """Remove what this machine received to resume from."""
    if is_joined() and own_place().local_rank == 0:
        shutil.rmtree(output_dir / RECEIVED, ignore_errors=True)


def gathered_in_first(content: bytes) -> list[bytes]:
    """The bytes of every process, by rank; small ones, as every process receives them."""
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, content)
    return every
