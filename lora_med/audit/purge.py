"""What was made from a source, found on disk: records written, runs, adapters, merged models, reports, pages.

Each is known by what it says of itself: card.json, run.json, a certificate, report.json, the `source` of its JSON
lines. Deleting is plain deletion; on a disk that keeps old blocks (an SSD, a snapshot, a backup) only encryption helps.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SKIPPED = {".git", ".venv", "node_modules", "__pycache__"}


@dataclass(frozen=True)
class Derived:
    """A file or folder made from the source: what it is, where, and its size in bytes."""

    kind: str
    path: Path
    size_bytes: int


def find_derived(source: str, roots: list[Path]) -> list[Derived]:
    """What below `roots` was made from `source`, a folder before what is in it, nothing twice."""
    found: dict[Path, Derived] = {}
    for root in roots:
        for kind, path in sorted(_marked(source, root), key=lambda one: len(one[1].parts)):
            if not any(parent in found for parent in (path, *path.parents)):
                found[path] = Derived(kind, path, _size(path))
    return sorted(found.values(), key=lambda one: str(one.path))


def delete(found: list[Derived]) -> None:
    """Delete them all.

    Raises:
        OSError: one cannot be deleted; those before it are.
    """
    for one in found:
        if one.path.is_dir():
            shutil.rmtree(one.path)
        else:
            one.path.unlink()


def _marked(source: str, root: Path) -> Iterator[tuple[str, Path]]:
    for path in _files(root):
        if path.name == "card.json":
            if source in str(_dig(_json(path), "data", "source")).split("+"):
                yield "adapter", path.parent
        elif path.name == "run.json":
            if source in _sources_of_run(_json(path)):
                yield "run", path.parent
        elif path.name == "report.json":
            entries = _dig(_json(path), "evaluations")
            if any(_dig(one, "source") == source for one in entries if isinstance(entries, list)):
                yield "report", path.parent
        elif path.name == "merge_certificate.json":
            if source in str(_dig(_json(path), "data", "source")).split("+"):
                yield "merged model", path.parent
        elif path.suffix in (".jsonl", ".ndjson"):
            if _first_line(path).get("source") == source:
                yield "records", path
        elif path.suffix == ".html" and _names_source(path, source):
            yield "preview page", path


def _files(folder: Path) -> Iterator[Path]:
    with suppress(PermissionError):
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or path.name in SKIPPED:
                continue
            if path.is_dir():
                yield from _files(path)
            else:
                yield path


def _json(path: Path) -> Any:
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if value is not None else []


def _sources_of_run(run: Any) -> set[str]:
    data = _dig(run, "settings", "data")
    mixed = _dig(data, "mix")
    return {str(_dig(data, "source")), *(str(_dig(one, "source")) for one in mixed)}


def _first_line(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError), open(path, encoding="utf-8") as lines:
        value = json.loads(next(lines, ""))
        return value if isinstance(value, dict) else {}
    return {}


def _names_source(path: Path, source: str) -> bool:
    with suppress(OSError, ValueError), open(path, encoding="utf-8") as page:
        head = page.read(4096)
        return "<title>What a run on " in head and source in head.partition("What a run on ")[2].partition("<")[0]
    return False


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in files if one.is_file() and not one.is_symlink())
