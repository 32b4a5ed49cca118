"""Scans of files, cached in the user's cache folder by the content of each file and by the settings that matter.

So a killed run goes on where it was, and a new file among a thousand costs only its own reading. Of data that are not
known to be open or registered nothing is cached: their scans are in a private folder while the process lives. A scan
that no run asked for in 90 days is deleted.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lora_med.data.catalog import find_source
from lora_med.data.outcome import ReadOptions
from lora_med.data.scanning.scan_files import FaultyFileError, is_complete, write_scan
from lora_med.data.scanning.workers import available_processes, in_order
from lora_med.data.splitting.leakage import Rules
from lora_med.errors import OutputError
from lora_med.files import atomic_stream, sha256_file
from lora_med.folders import PrivateFolder
from lora_med.run import cache_home

FOLDER = "scans"
UNUSED_SECONDS = 90 * 24 * 3600
LEAST_BYTES = 20_000_000  # of files; below, starting processes takes longer than reading
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """What scanning a file needs; `cached` is where its scan may stay, None for nowhere."""

    source: str
    path: Path
    options: ReadOptions
    rules: Rules
    settings: str
    cached: Path | None
    scratch: Path


@dataclass(frozen=True)
class FileScan:
    """A file, the SHA-256 of its content, its scan, and whether the scan was made now."""

    path: Path
    sha256: str
    scan: Path
    is_new: bool


def scan_files(
    source: str, paths: Sequence[Path], options: ReadOptions, rules: Rules, scratch: PrivateFolder, *, caches: bool
) -> list[FileScan]:
    """The scan of each file, in order: from the cache, or made now by several processes.

    Args:
        caches: whether scans may stay; else they are in `scratch`.

    Raises:
        InputMissingError: a file is not there.
        DiskError: the disk is full.
    """
    folder = _cache_folder() if caches else None
    settings = _settings_key(source, options, rules)
    jobs = [
        _Job(source, path, options, rules, settings, folder, scratch.path / f"{number}.arrow")
        for number, path in enumerate(paths)
    ]
    size = sum(path.stat().st_size for path in paths if path.is_file())
    processes = available_processes() if size >= LEAST_BYTES else 1
    scans: list[FileScan] = []
    for scan in in_order(_scan_file, jobs, processes):
        scans.append(scan)
        if scan.is_new and len(jobs) > 1:
            logger.info("scanned %s (%d of %d files)", scan.path.name, len(scans), len(jobs))
    if len(jobs) > 1:
        logger.info("%d of %d files were scanned before", sum(not scan.is_new for scan in scans), len(jobs))
    return scans


def _scan_file(job: _Job) -> FileScan:
    sha256 = sha256_of(job.path)
    if job.cached is not None:
        cached = job.cached / f"{hashlib.sha256(f'{sha256} {job.settings}'.encode()).hexdigest()[:40]}.arrow"
        if is_complete(cached):
            with contextlib.suppress(OSError):
                os.utime(cached)
            return FileScan(job.path, sha256, cached, False)
        with contextlib.suppress(FaultyFileError, OutputError):
            _write(cached, job, refuses_faults=True)
            return FileScan(job.path, sha256, cached, True)
    _write(job.scratch, job, refuses_faults=False)
    return FileScan(job.path, sha256, job.scratch, True)


def _write(path: Path, job: _Job, *, refuses_faults: bool) -> None:
    steps = importlib.import_module(find_source(job.source).module).steps(job.path, job.options)
    with atomic_stream(path, private=True) as stream:
        write_scan(stream, steps, job.rules, refuses_faults=refuses_faults)


def sha256_of(path: Path) -> str:
    """SHA-256 of the file; empty where it cannot be read, which reading it then reports."""
    try:
        return sha256_file(path)
    except OSError:
        return ""


def _cache_folder() -> Path | None:
    """The folder of cached scans, without those that nobody used for long; None where it cannot be made."""
    folder = cache_home() / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # a scan holds uids
        for scan in folder.glob("*.arrow"):
            if scan.stat().st_mtime < time.time() - UNUSED_SECONDS:
                scan.unlink(missing_ok=True)
    except OSError:
        return None
    return folder


def _settings_key(source: str, options: ReadOptions, rules: Rules) -> str:
    """Identifies everything besides the file itself that decides what its scan says."""
    lists = [rule.sha256 for rule in (*rules.block_lists, *rules.test_files)]
    return json.dumps([source, options.keep_retracted, rules.similarity > 0, lists, metadata.version("rensa"), _code()])


@functools.cache
def _code() -> str:
    """SHA-256 of the code that reads: another version of it scans again."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()
