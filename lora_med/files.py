"""Files that are whole or not there: atomic writes, hashes, a lock, and streams that know a torn archive.

A file is written beside its target, flushed to disk, and renamed; a folder likewise. So a kill at any
moment leaves the old state or the new one. Standard library only (isal, if installed, reads gzip faster).
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
_NO_PLACE = {errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTEMPTY}
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors tells the number in its text only
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


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


def _number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = _RUST_ERROR.search(str(error))
    return int(found.group(1)) if found else None


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turn a full disk or an I/O error, of a library too, into a DiskError that names `path`; all else passes."""
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
    """Turn a full disk, an I/O error or a place that cannot be written into our own errors, naming `path`."""
    try:
        with full_disk(path):
            yield
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno not in _NO_PLACE:
            raise
        what = f"cannot write: {error.strerror}"
        raise OutputError(what, where=str(path), fix="choose a folder you may write to") from error


@contextlib.contextmanager
def atomic_stream(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """A binary stream to write `path` through, for content too large to hold; an error leaves `path` as it was.

    A `private` file is its owner's alone (0600) from the first byte.

    Raises:
        DiskError: the disk is full or failed.
        OutputError: the place is not writable.
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
        with contextlib.suppress(OSError):  # on a full disk closing fails too, and the first error is the one to tell
            handle.close()
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str, *, private: bool = False) -> Path:
    """Write `content` so that `path` holds all of it or stays as it was; returns `path`. See `atomic_stream`.

    Raises:
        DiskError: the disk is full or failed.
        OutputError: the place is not writable.
    """
    with atomic_stream(path, private=private) as handle:
        handle.write(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def write_json(path: Path, value: object, *, private: bool = False) -> Path:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused, for no reader takes them."""
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
    except (ValueError, RecursionError) as error:  # no text, no JSON, a number too long or brackets too deep
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


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def replace_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """Make `target` anew with `fill(folder)`; the old content stays until the new one is whole on disk.

    Where the file system cannot swap two folders at once (Linux's local ones can), `target` is gone for a moment.

    Raises:
        OutputError: the place is not writable.
        DiskError: the disk is full or failed.
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
    """Hold `folder` for this process alone; the kernel lets go when the process ends, however it ends.

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
            held = isinstance(error, BlockingIOError)
            what = f"another run (process {holder}) is writing here" if held else f"cannot lock: {error.strerror}"
            raise OutputError(what, where=str(folder), fix="wait for it, or choose another output folder") from error
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
        InputMissingError: no such file, or it may not be read.
        DataError: the file is empty.
    """
    try:
        raw = open(path, "rb")  # noqa: SIM115 - handed to the caller
    except OSError as error:
        reason = "no such file" if error.errno == errno.ENOENT else f"cannot read the file ({error.strerror})"
        raise InputMissingError(
            f"{reason}: {path.name}", where=str(path.parent), fix="check the path in data.paths"
        ) from error
    magic = raw.read(2)
    raw.seek(0)
    if not magic:
        raw.close()
        raise DataError("the file is empty (0 bytes)", where=str(path), fix="download or write it again")
    if magic != b"\x1f\x8b":
        return raw
    raw.close()  # the archive opens it again by name, so that closing the stream closes the file
    try:
        from isal import igzip

        return io.BufferedReader(igzip.IGzipFile(path, "rb"), BLOCK_BYTES)  # type: ignore[arg-type]
    except ImportError:
        return io.BufferedReader(gzip.GzipFile(path, "rb"), BLOCK_BYTES)  # type: ignore[arg-type]


def _corrupt() -> tuple[Any, ...]:
    """What a decompressor raises at a torn or corrupt stream."""
    with contextlib.suppress(ImportError):
        from isal import isal_zlib

        return EOFError, zlib.error, gzip.BadGzipFile, isal_zlib.error
    return EOFError, zlib.error, gzip.BadGzipFile


@contextlib.contextmanager
def archive_errors(path: Path) -> Iterator[None]:
    """Turn a truncated or corrupt gzip stream into a DataError that names `path`."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _corrupt()):
            raise
        what = "the gzip archive ends early or is corrupt"
        raise DataError(what, where=str(path), fix="download it again and compare its checksum") from error
