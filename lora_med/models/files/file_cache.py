"""What took long to find out about files, remembered under the user's cache folder until one of them changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from lora_med.errors import LoraMedError
from lora_med.files import read_json, write_json
from lora_med.run import cache_home


def memory_for(files: Iterable[Path], kind: str, *more: str) -> Path:
    """Where a fact of these files, as they now are, is remembered: place, size and times, and `more`, make its name."""
    facts: list[object] = [*more]
    for path in sorted({path.resolve() for path in set(files)}):
        state = path.stat()
        facts.append([str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino])
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return memories(kind) / f"{name}.json"


def memories(kind: str) -> Path:
    """The folder of all that is remembered of one kind."""
    return cache_home() / kind


def remembered(fact: str, memory: Path, find: Callable[[], str], *, fresh: bool = False, **more: str) -> str:
    """The value of `fact` that `memory` holds; else, or where `fresh`, what `find` gives, then held with `more`."""
    if not fresh:
        with contextlib.suppress(LoraMedError, KeyError, TypeError, OSError):
            return str(read_json(memory)[fact])
    value = find()
    with contextlib.suppress(LoraMedError, OSError):  # a home that cannot be written only costs the time next time
        write_json(memory, {fact: value, **more})
    return value
