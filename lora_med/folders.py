"""Folders that are complete or absent: written beside their target, flushed and renamed; and the lock of a folder.

A process killed at any moment leaves the old folder or the new one, and perhaps a temporary folder, which
`sweep_folders` removes. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from lora_med.errors import InputMissingError, OutputError
from lora_med.files import disk_errors, full_disk, sync

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and `folder` itself, to disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(root) / name)
        sync(Path(root))


@contextlib.contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` if the block ends without an error, and is removed otherwise.

    Raises:
        OutputError: `target` exists and is not an empty folder, or cannot be written.
        DiskError: the disk is full or failed.
    """
    resolved = Path(os.path.realpath(target))  # a link remains, and what it leads to is written
    temporary = resolved.with_name(f".{resolved.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError("the output is not empty", where=str(target), fix="name a folder that does not exist yet")
        temporary.mkdir(parents=True)
    try:
        with full_disk(target):
            yield temporary
        with disk_errors(target):
            sync_tree(temporary)
            os.replace(temporary, resolved)
            sync(resolved.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False if the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0


def replace_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """Replace `target` with what `fill(folder)` writes; the old content remains until the new one is complete on disk.

    If the file system cannot swap two folders (Linux's local ones can), `target` is absent for a moment.

    Raises:
        DiskError, OutputError: as `atomic_stream`.
    """
    resolved = Path(os.path.realpath(target))  # a link remains, and what it leads to is written
    temporary = resolved.with_name(f".{resolved.name}.{uuid.uuid4().hex[:8]}.tmp")
    previous = temporary.with_suffix(".old")
    with disk_errors(target):
        temporary.mkdir(parents=True)
    try:
        with full_disk(target):
            fill(temporary)
        with disk_errors(target):
            sync_tree(temporary)
            if not resolved.exists():
                os.replace(temporary, resolved)
            elif not _exchange(temporary, resolved):
                os.replace(resolved, previous)
                os.replace(temporary, resolved)
            sync(resolved.parent)
    finally:
        if previous.exists() and not resolved.exists():
            os.replace(previous, resolved)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)
    return target


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[Path]:
    """Lock `folder` for this process; the kernel releases the lock when the process ends, however it ends.

    Raises:
        OutputError: another process holds it (the message names its process id), or it cannot be locked.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - closed below, after the lock
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            is_locked = isinstance(error, BlockingIOError)
            what = f"another run (process {holder}) is writing here" if is_locked else f"cannot lock: {error.strerror}"
            raise OutputError(what, where=str(folder), fix="wait for it, or choose another output folder") from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield folder
    finally:
        handle.close()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a temporary folder; the kernel unlocks it when the process ends, so `sweep_folders` skips running ones."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sweep_folders(target: Path) -> None:
    """Remove the folders that killed processes, writing `target`, left beside it."""
    resolved = Path(os.path.realpath(target))
    for leftover in resolved.parent.glob(f".{resolved.name}.*.tmp"):
        with contextlib.suppress(OSError):
            with held(leftover):
                pass
            shutil.rmtree(leftover)


class PrivateFolder:
    """A new folder (0700), deleted with this object or at the end of the process.

    It is in `parent`, or left out where Python puts temporary files.

    What killed processes left of the same `name` is removed first; the folders of running ones are locked.

    Raises:
        OutputError, DiskError: it cannot be made.
    """

    def __init__(self, name: str, *, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        sweep_folders(parent / name)
        with disk_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            self.path, descriptor = _locked_folder(parent, name)
        self._cleanup = weakref.finalize(self, _remove, self.path, descriptor)

    def cleanup(self) -> None:
        """Delete the folder now."""
        self._cleanup()


def _locked_folder(parent: Path, name: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=parent))
        descriptor = -1
        with contextlib.suppress(FileNotFoundError, BlockingIOError):  # swept by another process in between
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                return path, descriptor
        if descriptor >= 0:
            os.close(descriptor)


def _remove(path: Path, descriptor: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(descriptor)


def check_working_directory() -> None:
    """Stop if the working directory was deleted: relative paths mean nothing, and torch ends the process as it loads.

    Raises:
        InputMissingError: it is gone.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputMissingError("the working directory was deleted", fix="cd to a folder that exists") from error
