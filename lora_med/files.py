"""Files that are whole or not there: atomic writes, hashes, a lock, and streams that know a torn archive.

A file is written beside its target, flushed to disk, and renamed; a folder likewise. So a kill at any
moment leaves the old state or the new one. Standard library only (isal, if installed, reads gzip faster).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lora_med.errors import DataError, DiskError, InputMissingError, IntegrityError, OutputError

BLOCK_BYTES = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def sync(path: Path) -> None:
    """Flush one file, or one folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and `folder` itself, to disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(root) / name)
        sync(Path(root))


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, an I/O error or a forbidden place into our own errors, naming `path`."""
    try:
        yield
    except PermissionError as error:
        raise OutputError(
            f"cannot write: {error.strerror}", where=str(path), fix="choose a folder you may write to"
        ) from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskError(
                f"{os.strerror(error.errno or 0)} while writing",
                where=str(path),
                fix="free some space, then run the same command again",
            ) from error
        raise


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Write `content` so that `path` holds all of it or stays as it was; returns `path`.

    Raises:
        DiskError: the disk is full or failed.
        OutputError: the place is not writable.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def atomic_stream(path: Path) -> Iterator[BinaryIO]:
    """A binary stream to write `path` through, for content too large to hold; an error leaves `path` as it was.

    Raises:
        DiskError: the disk is full or failed.
        OutputError: the place is not writable.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(temporary, "wb")  # noqa: SIM115 - closed below, before the rename
    try:
        yield handle
        with disk_errors(path):
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        handle.close()
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> Path:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused, for no reader takes them."""
    return write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        InputMissingError: there is no such file.
        IntegrityError: the file is not JSON (the message names the line, never the text).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputMissingError(f"no such file: {path.name}", where=str(path.parent)) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        line = getattr(error, "lineno", 0)
        raise IntegrityError(
            "not valid JSON", where=f"{path}:{line}", fix="restore the file, or make it again"
        ) from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` on leaving without an error, and vanishes otherwise.

    Raises:
        OutputError: `target` exists and is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError("the output is not empty", where=str(target), fix="name a folder that does not exist yet")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(target):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            sync_tree(temporary)
            if target.exists():
                target.rmdir()
            os.replace(temporary, target)
            sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """Make `target` anew with `fill(folder)`; the old content stays until the new one is whole on disk."""
    parent = target.parent
    temporary = parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    previous = parent / f".{target.name}.{uuid.uuid4().hex[:8]}.old"
    with disk_errors(target):
        temporary.mkdir(parents=True)
        try:
            fill(temporary)
            sync_tree(temporary)
            if target.exists():
                os.replace(target, previous)
            os.replace(temporary, target)
            sync(parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if previous.exists() and not target.exists():
                os.replace(previous, target)
            shutil.rmtree(previous, ignore_errors=True)
    return target


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[Path]:
    """Hold `folder` for this process alone; the kernel lets go when the process ends, however it ends.

    Raises:
        OutputError: another process holds it (the message names its process id).
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
            raise OutputError(
                f"another run (process {holder}) is writing here",
                where=str(folder),
                fix="wait for it, or choose another output folder",
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield folder
    finally:
        handle.close()


def open_stream(path: Path) -> BinaryIO:
    """A binary stream of `path`, decompressed if its first bytes say gzip (the name is not trusted).

    Read it inside `archive_errors(path)`, which names a truncated or corrupt archive.

    Raises:
        InputMissingError: no such file.
        DataError: the file is empty.
    """
    try:
        raw = open(path, "rb")  # noqa: SIM115 - handed to the caller
    except FileNotFoundError as error:
        raise InputMissingError(
            f"no such file: {path.name}", where=str(path.parent), fix="check the path in data.paths"
        ) from error
    except IsADirectoryError as error:
        raise InputMissingError("a folder stands where a file was expected", where=str(path)) from error
    magic = raw.read(2)
    raw.seek(0)
    if not magic:
        raw.close()
        raise DataError("the file is empty (0 bytes)", where=str(path), fix="download or write it again")
    if magic != b"\x1f\x8b":
        return raw
    try:
        from isal import igzip

        return io.BufferedReader(igzip.IGzipFile(fileobj=raw, mode="rb"), BLOCK_BYTES)  # type: ignore[arg-type]
    except ImportError:
        import gzip

        return io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb"), BLOCK_BYTES)  # type: ignore[arg-type]


@contextlib.contextmanager
def archive_errors(path: Path) -> Iterator[None]:
    """Turn a truncated or corrupt gzip stream into a DataError that names `path`."""
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise DataError(
            "the gzip archive ends early or is corrupt",
            where=str(path),
            fix="download it again and compare its checksum",
        ) from error
    except OSError as error:
        if error.errno is None:
            raise DataError(
                "the gzip archive is corrupt", where=str(path), fix="download it again and compare its checksum"
            ) from error
        raise
