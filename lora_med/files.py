"""Files that are complete or absent: atomic writes, hashes, a lock, and streams that detect a truncated archive.

A file is written next to its target, flushed to disk, and renamed; so is a folder. A process killed at any moment
leaves the old state or the new one. Standard library only (isal, if installed, reads gzip faster).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lora_med.errors import DataError, DiskError, InputMissingError, IntegrityError, OutputError

BLOCK_BYTES = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_NOT_WRITABLE = {errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTEMPTY}
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors gives the number only in its text
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def sync(path: Path) -> None:
    """Flush one file, or one folder's directory entries, to disk."""
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


def _number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    match = _RUST_ERROR.search(str(error))
    return int(match.group(1)) if match else None


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turn a full disk or an I/O error, also a library's, into a DiskError that names `path`; others pass through."""
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number not in _NO_SPACE:
            raise
        what = f"{os.strerror(number)} while writing"
        raise DiskError(what, where=str(path), fix="free some space, then run the same command again") from error


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, an I/O error or an unwritable path into our own errors, which name `path`."""
    try:
        with full_disk(path):
            yield
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno not in _NOT_WRITABLE:
            raise
        raise OutputError(f"cannot write: {error.strerror}", where=str(path), fix="choose a writable folder") from error


@contextlib.contextmanager
def atomic_stream(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """A binary stream that writes `path` atomically, for content too large for memory; on an error `path` is unchanged.

    Only the owner can read a `private` file (0600), from the first byte on.

    Raises:
        DiskError: the disk is full or failed.
        OutputError: the path is not writable.
    """
    if not path.name or path.is_dir():
        raise OutputError("expected a file's name, got a folder", where=str(path), fix="name a file in it")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600 if private else 0o666
        handle = open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")  # noqa: SIM115 - closed below
    try:
        with full_disk(path):
            yield handle
        with disk_errors(path):
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # on a full disk closing fails too; report the first error
            handle.close()
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str, *, private: bool = False) -> Path:
    """Write `content` atomically: `path` holds all of it or is unchanged; returns `path`.

    Raises:
        DiskError, OutputError: as `atomic_stream`.
    """
    with atomic_stream(path, private=private) as handle:
        handle.write(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def write_json(path: Path, value: object, *, private: bool = False) -> Path:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused, because JSON readers reject them."""
    return write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", private=private)


def read_json(path: Path, content: bytes | None = None) -> Any:
    """The JSON value in `path`, or in `content`, the bytes of that file where they are in memory already.

    Raises:
        InputMissingError: there is no such file.
        IntegrityError: the file is not JSON (the message names the line, never the text).
    """
    try:
        return json.loads((path.read_bytes() if content is None else content).decode("utf-8"))
    except FileNotFoundError as error:
        raise InputMissingError(f"no such file: {path.name}", where=str(path.parent)) from error
    except (ValueError, RecursionError) as error:  # not text, not JSON, a number too long or brackets too deep
        where = f"{path}:{getattr(error, 'lineno', 0)}"
        raise IntegrityError("not valid JSON", where=where, fix="restore the file, or make it again") from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` if the block ends without an error, and is removed otherwise.

    Raises:
        OutputError: `target` exists and is not an empty folder, or cannot be written.
        DiskError: the disk is full or failed.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError("the output is not empty", where=str(target), fix="name a folder that does not exist yet")
        temporary.mkdir(parents=True)
    try:
        with full_disk(target):
            yield temporary
        with disk_errors(target):
            sync_tree(temporary)
            os.replace(temporary, target)
            sync(target.parent)
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
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    previous = temporary.with_suffix(".old")
    with disk_errors(target):
        temporary.mkdir(parents=True)
    try:
        with full_disk(target):
            fill(temporary)
        with disk_errors(target):
            sync_tree(temporary)
            if not target.exists():
                os.replace(temporary, target)
            elif not _exchange(temporary, target):
                os.replace(target, previous)
                os.replace(temporary, target)
            sync(target.parent)
    finally:
        if previous.exists() and not target.exists():
            os.replace(previous, target)
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


def open_stream(path: Path) -> BinaryIO:
    """A binary stream of `path`, decompressed if its first bytes are gzip's (the name is not trusted).

    Read it inside `archive_errors(path)`, which names a truncated or corrupt archive.

    Raises:
        InputMissingError: no such file, or it may not be read.
        DataError: the file is empty.
    """
    try:
        raw = open(path, "rb")  # noqa: SIM115 - handed to the caller
    except OSError as error:
        reason = "no such file" if error.errno == errno.ENOENT else f"cannot read the file ({error.strerror})"
        fix = "check the path in data.paths"
        raise InputMissingError(f"{reason}: {path.name}", where=str(path.parent), fix=fix) from error
    magic = raw.read(2)
    raw.seek(0)
    if not magic:
        raw.close()
        raise DataError("the file is empty (0 bytes)", where=str(path), fix="download or write it again")
    if magic != b"\x1f\x8b":
        return raw
    raw.close()  # the archive reopens it by name, so that closing the stream closes the file
    try:
        from isal import igzip

        return io.BufferedReader(igzip.IGzipFile(path, "rb"), BLOCK_BYTES)  # type: ignore[arg-type]
    except ImportError:
        return io.BufferedReader(gzip.GzipFile(path, "rb"), BLOCK_BYTES)  # type: ignore[arg-type]


def _corrupt() -> tuple[Any, ...]:
    """The exceptions that a decompressor raises for a truncated or corrupt stream."""
    with contextlib.suppress(ImportError):
        from isal import isal_zlib

        return EOFError, zlib.error, gzip.BadGzipFile, isal_zlib.error
    return EOFError, zlib.error, gzip.BadGzipFile


@contextlib.contextmanager
def archive_errors(path: Path) -> Iterator[None]:
    """Turn a truncated or corrupt gzip stream into a DataError that names `path`."""
    try:
        yield
    except _corrupt() as error:
        what = "the gzip archive ends early or is corrupt"
        raise DataError(what, where=str(path), fix="download it again and compare its checksum") from error
