"""Files that are complete or absent: atomic writes, hashes, and streams that detect a truncated archive.

A file is written next to its target, flushed to disk, and renamed. A process killed at any moment leaves the old state
or the new one, and perhaps a temporary file, which the next write into the folder removes. Standard library only (isal,
if installed, reads gzip faster).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import stat
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lora_med.errors import DataError, DiskError, InputMissingError, IntegrityError, OutputError

BLOCK_BYTES = 1 << 20
MOST_LINKS = 40  # of a chain, as the kernel follows them
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.lora-med\.tmp", re.DOTALL)
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_NOT_WRITABLE = {errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTEMPTY}
_NOT_WRITABLE |= {errno.ENOENT, errno.ENXIO, errno.EBADF, errno.ELOOP}  # of pipes, sockets, descriptors and links
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors gives the number only in its text


def sync(path: Path) -> None:
    """Flush one file, or one folder's directory entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def destination(path: Path) -> tuple[Path, bool]:
    """The file that `path` leads to through links, and whether it is a stream: a device, a pipe, an open descriptor.

    A link thus remains, and its target is written. A stream is written to as it is and never replaced by a file.

    Raises:
        OutputError: a link that leads to itself.
    """
    for _ in range(MOST_LINKS):
        folder = Path(os.path.realpath(path.parent))
        path = folder / path.name
        if folder.is_relative_to("/proc"):  # what /dev/stdout and /dev/fd lead to, whatever is behind the descriptor
            return path, True
        if not path.is_symlink():
            return path, path.exists() and not path.is_file() and not path.is_dir()
        path = folder / path.readlink()
    raise OutputError("the link leads to itself", where=str(path), fix="name another file")


@contextlib.contextmanager
def atomic_stream(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """A binary stream that writes `path` atomically, for content too large for memory; on an error `path` is unchanged.

    Only the owner can read a `private` file (0600), from the first byte on. A link is followed. A device, a pipe or an
    open descriptor such as /dev/stdout is written to directly.

    Raises:
        DiskError: the disk is full or failed.
        OutputError: the path is not writable.
    """
    if not path.name or path.is_dir():
        raise OutputError("expected a file's name, got a folder", where=str(path), fix="name a file in it")
    target, is_stream = destination(path)
    if is_stream:
        with _open_directly(target, path) as handle:
            if private:
                make_private(handle)
            with full_disk(path):
                yield handle
        return
    with disk_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        temporary, handle = _open_temporary(target, 0o600 if private else 0o666)
    try:
        with full_disk(path):
            yield handle
        with disk_errors(path):
            handle.flush()
            os.fsync(handle.fileno())
            os.replace(temporary, target)  # before the stream is closed, which unlocks the file for `sweep`
            sync(target.parent)
    finally:
        with contextlib.suppress(OSError):  # on a full disk closing fails too; report the first error
            handle.close()
        temporary.unlink(missing_ok=True)


def _open_directly(target: Path, path: Path) -> BinaryIO:
    """A device or pipe, opened to write; of a descriptor of this process a duplicate, which truncates nothing."""
    with disk_errors(path):
        is_own = target.parent == Path(os.path.realpath("/proc/self/fd")) and target.name.isdecimal()
        return open(os.dup(int(target.name)) if is_own else target, "wb")


def _open_temporary(target: Path, mode: int) -> tuple[Path, BinaryIO]:
    """A new file beside `target`, locked as long as it is open, so that `sweep` in another process leaves it alone."""
    while True:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.lora-med.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        swept = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            swept = True
        except OSError:
            pass  # a file system without locks: nothing is swept there
        if not swept and temporary.exists():
            return temporary, open(descriptor, "wb")
        os.close(descriptor)  # another process swept it between its creation and its lock: another name


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`; those of running ones are locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):  # locked, or another user's
                    _unlink_unlocked(Path(entry.path))


def _unlink_unlocked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            path.unlink()
    finally:
        os.close(descriptor)


def make_private(stream: BinaryIO) -> None:
    """Let only its owner read the file behind an open stream (0600); a device or a pipe remains as it is."""
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        os.fchmod(stream.fileno(), 0o600)


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


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn a file that is absent, or may not be read, into an InputMissingError; a failing disk into a DiskError."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputMissingError(f"no such file: {path.name}", where=str(path.parent)) from error
    except OSError as error:
        if error.errno == errno.EIO:
            what = f"the disk cannot read {path.name!r} ({error.strerror})"
            raise DiskError(what, where=str(path), fix="check the disk, and copy the file again") from error
        raise unreadable(error, path) from error


def unreadable(error: OSError, path: Path) -> InputMissingError:
    """The error of a file or folder that is there and may not be read."""
    return InputMissingError(
        f"cannot read {path.name!r} ({error.strerror})",
        where=str(path),
        fix="give yourself the right to read it (chmod), or name another",
    )


def forbidden(error: Exception) -> InputMissingError | None:
    """A permission that was refused, whatever raised it, as an error with its path; None for any other exception."""
    if not isinstance(error, PermissionError) or error.filename is None:
        return None
    return unreadable(error, Path(os.fsdecode(error.filename)))


def read_json(path: Path, content: bytes | None = None) -> Any:
    """The JSON value in `path`, or in `content`, the bytes of that file where they are in memory already.

    Raises:
        InputMissingError: there is no such file, or it may not be read.
        IntegrityError: the file is not JSON (the message names the line, never the text).
    """
    try:
        with readable(path):
            data = path.read_bytes() if content is None else content
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not text, not JSON, a number too long or brackets too deep
        where = f"{path}:{getattr(error, 'lineno', 0)}"
        raise IntegrityError("not valid JSON", where=where, fix="restore the file, or make it again") from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


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
