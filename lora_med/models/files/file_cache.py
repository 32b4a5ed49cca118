"""Facts about files that are slow to compute, cached in the user's cache folder until one of the files changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from lora_med.errors import LoraMedError
from lora_med.files import read_json, write_json
from lora_med.run import cache_home


def cache_file_for(files: Iterable[Path], kind: str, *more: str) -> Path:
    """The cache file for a fact about these files; path, size and times of each, and `more`, make its name."""
    facts: list[object] = [*more]
    for path in sorted({path.resolve() for path in set(files)}):
        state = path.stat()
        facts.append([str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino])
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return cache_folder(kind) / f"{name}.json"


def cache_folder(kind: str) -> Path:
    """The folder that holds all cached facts of one kind."""
    return cache_home() / kind


def cached_value(fact: str, cache_file: Path, compute: Callable[[], str], *, fresh: bool = False, **more: str) -> str:
    """The value of `fact` in `cache_file`; if absent or `fresh`, the value of `compute()`, cached with `more`."""
    if not fresh:
        with contextlib.suppress(LoraMedError, KeyError, TypeError, OSError):
            return str(read_json(cache_file)[fact])
    value = compute()
    with contextlib.suppress(LoraMedError, OSError):  # an unwritable cache folder only costs the time again
        write_json(cache_file, {fact: value, **more})
    return value
