"""What was made from a source, found on disk: records written, runs, adapters, merged models, exports, reports, pages.

Each is known by what it says of itself: card.json, run.json, a certificate, export.json, report.json, the `source` of
its JSON lines. Deleting is plain deletion; on a disk that keeps old blocks (an SSD, a snapshot, a backup) only
encryption helps.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SKIPPED = {".git", ".venv", "node_modules", "__pycache__"}
# What lora_med writes into a run's folder. A folder goes as a whole only if there is nothing else in it.
RUN = re.compile(r"run\.json|metrics\.jsonl|loss\.png|checkpoint-\d+|prepared|\.lock")
MADE = {"card.json": "adapter", "merge_certificate.json": "merged model", "export.json": "export"}
LONGEST_LINE = 1 << 25
PAGE = re.compile(r'<meta name="lora_med-sources" content="([^"]*)">')


@dataclass(frozen=True)
class Derived:
    """A file or folder made from the source: what it is, where, and its size in bytes."""

    kind: str
    path: Path
    size_bytes: int


def find_derived(source: str, roots: list[Path]) -> list[Derived]:
    """What below `roots` was made from `source`, a folder before what is in it, nothing twice, no root itself."""
    kept = {folder for root in roots for folder in (root, *root.parents)}
    found: dict[Path, Derived] = {}
    for root in roots:
        marked = [one for kind, path in _marked(source, root) for one in _written(kind, path, kept)]
        for kind, path in sorted(marked, key=lambda one: len(one[1].parts)):
            if not any(parent in found for parent in (path, *path.parents)):
                found[path] = Derived(kind, path, _size(path))
    return sorted(found.values(), key=lambda one: str(one.path))


def _written(kind: str, path: Path, kept: set[Path]) -> list[tuple[str, Path]]:
    """The file itself, or of a folder all that lora_med wrote there, which may be the folder as a whole."""
    if path.is_file():
        return [(kind, path)]
    if kind == "export":
        return _exported(path, kept)
    entries, names = list(path.iterdir()), _names(kind, path)
    ours = [entry for entry in entries if entry.name in names or (kind == "run" and RUN.fullmatch(entry.name))]
    return [(kind, path)] if len(ours) == len(entries) and path not in kept else [(kind, entry) for entry in ours]


def _exported(folder: Path, kept: set[Path]) -> list[tuple[str, Path]]:
    """An export's files, some in folders of their own; the folder itself if there is nothing else in it."""
    names = {"export.json", *map(str, _each(_dig(_json(folder / "export.json"), "files")))}
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    ours = [path for path in files if path.relative_to(folder).as_posix() in names]
    return [("export", folder)] if ours == files and folder not in kept else [("export", path) for path in ours]


def _names(kind: str, folder: Path) -> set[str]:
    """The files that the folder's own marker says were written with it."""
    if kind == "adapter":
        return {"card.json", *map(str, _each(_dig(_json(folder / "card.json"), "files")))}
    if kind == "merged model":
        written = _each(_dig(_json(folder / "merge_certificate.json"), "merged", "files"))
        return {"merge_certificate.json", "README.md", *map(str, written)}
    if kind == "report":
        entries = _each(_dig(_json(folder / "report.json"), "evaluations"))
        return {"report.html", "report.json", "report.md", *(str(_dig(one, "items_file")) for one in entries)}
    return set()


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
        if path.name == "run.json":
            if source in _sources_of_run(_json(path)):
                yield "run", path.parent
        elif path.name == "report.json":
            entries = _each(_dig(_json(path), "evaluations"))
            if any(_dig(one, "source") == source for one in entries):
                yield "report", path.parent
        elif path.name in MADE:
            data = _dig(_json(path), "data")
            if source in [*str(_dig(data, "source")).split("+"), *_each(_dig(data, "earlier_sources"))]:
                yield MADE[path.name], path.parent
        elif path.suffix == ".html":
            if source in _sources_of_page(path):
                yield "preview page", path
        elif _first_line(path).get("source") == source:
            yield "records", path


def _files(folder: Path) -> Iterator[Path]:
    with suppress(PermissionError):
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or path.name in SKIPPED:
                continue
            if path.is_dir():
                yield from _files(path)
            elif path.is_file():  # a pipe would never end
                yield path


def _json(path: Path) -> Any:
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if value is not None else []


def _each(value: Any) -> list[Any]:
    """What a list or an object of a file that may be a stranger's holds; nothing of anything else."""
    return list(value) if isinstance(value, list | dict) else []


def _sources_of_run(run: Any) -> set[str]:
    data = _dig(run, "settings", "data")
    mixed = _each(_dig(data, "mix"))
    return {str(_dig(data, "source")), *(str(_dig(one, "source")) for one in mixed)}


def _first_line(path: Path) -> dict[str, Any]:
    """The first line of a file as an object, whatever its name: a file torn off while it was written has another."""
    with suppress(OSError, ValueError, RecursionError), open(path, "rb") as lines:
        if lines.peek(1)[:1] == b"{":
            value = json.loads(lines.readline(LONGEST_LINE))
            return value if isinstance(value, dict) else {}
    return {}


def _sources_of_page(path: Path) -> list[str]:
    with suppress(OSError, ValueError), open(path, encoding="utf-8") as page:
        named = PAGE.search(page.read(4096))
        return named[1].split() if named else []
    return []


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in files if one.is_file() and not one.is_symlink())
