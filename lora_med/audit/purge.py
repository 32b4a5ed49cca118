"""Files made from a source: records, runs, adapters, merged models, exports, reports, preview pages.

Each is identified by its own marker: card.json, run.json, a certificate, export.json, report.json, the `source` of
its JSON lines. Deletion is ordinary deletion; where old blocks remain (an SSD, a snapshot, a backup), only
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

from lora_med.audit_trail import recorded
from lora_med.signatures import PAPERS, SIGNATURES

SKIPPED = {".git", ".venv", "node_modules", "__pycache__"}
# What lora_med writes into a run's folder. A folder is deleted only if it holds nothing else.
RUN = re.compile(r"run\.json|metrics\.jsonl|loss\.png|checkpoint-\d+|prepared|\.lock")
MADE = {paper: kind for paper, kind in PAPERS.items() if kind != "report"}  # a report lists its sources otherwise
LONGEST_LINE = 1 << 25
PAGE = re.compile(r'<meta name="lora_med-sources" content="([^"]*)">')


@dataclass(frozen=True)
class Derived:
    """A file or folder made from the source: its kind, path and size in bytes."""

    kind: str
    path: Path
    size_bytes: int


def find_derived(source: str, roots: list[Path]) -> list[Derived]:
    """The files and folders below `roots` made from `source`; a folder includes its files; never a root itself."""
    protected = {folder for root in roots for folder in (root, *root.parents)}
    derived: dict[Path, Derived] = {}
    for root in roots:
        marked = [item for kind, path in _marked(source, root) for item in _written(kind, path, protected)]
        for kind, path in sorted(marked, key=lambda item: len(item[1].parts)):
            if not any(parent in derived for parent in (path, *path.parents)):
                derived[path] = Derived(kind, path, _size(path))
    return sorted(derived.values(), key=lambda item: str(item.path))


def _written(kind: str, path: Path, protected: set[Path]) -> list[tuple[str, Path]]:
    """The file itself, or all that lora_med wrote into the folder; the folder itself if it holds nothing else."""
    if path.is_file():
        return [(kind, path)]
    if kind == "export":
        return _exported(path, protected)
    entries, names = list(path.iterdir()), _names(kind, path)
    ours = [entry for entry in entries if entry.name in names or (kind == "run" and RUN.fullmatch(entry.name))]
    return [(kind, path)] if len(ours) == len(entries) and path not in protected else [(kind, entry) for entry in ours]


def _exported(folder: Path, protected: set[Path]) -> list[tuple[str, Path]]:
    """An export's files, some in subfolders; the folder itself if it holds nothing else."""
    names = {"export.json", SIGNATURES, *map(str, _each(_dig(_json(folder / "export.json"), "files")))}
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    ours = [path for path in files if path.relative_to(folder).as_posix() in names]
    return [("export", folder)] if ours == files and folder not in protected else [("export", path) for path in ours]


def _names(kind: str, folder: Path) -> set[str]:
    """The files that the folder's marker lists, and their signatures."""
    if kind == "adapter":
        return {"card.json", SIGNATURES, *map(str, _each(_dig(_json(folder / "card.json"), "files")))}
    if kind == "merged model":
        written = _each(_dig(_json(folder / "merge_certificate.json"), "merged", "files"))
        return {"merge_certificate.json", "README.md", SIGNATURES, *map(str, written)}
    if kind == "report":
        entries = _each(_dig(_json(folder / "report.json"), "evaluations"))
        return {
            "report.html",
            "report.json",
            "report.md",
            SIGNATURES,
            *(str(_dig(entry, "items_file")) for entry in entries),
        }
    return set()


def delete(source: str, derived: list[Derived]) -> None:
    """Delete them all; the audit trail gets their paths before, and how many were deleted after.

    Raises:
        OSError: one cannot be deleted; those before it are already deleted.
    """
    found = [{"kind": item.kind, "path": str(item.path), "size_bytes": item.size_bytes} for item in derived]
    with recorded("purge", source=source, found=found) as facts:
        facts["deleted"] = 0
        for item in derived:
            if item.path.is_dir():
                shutil.rmtree(item.path)
            else:
                item.path.unlink()
            facts["deleted"] += 1


def _marked(source: str, root: Path) -> Iterator[tuple[str, Path]]:
    for path in _files(root):
        if path.name == "run.json":
            if source in _sources_of_run(_json(path)):
                yield "run", path.parent
        elif path.name == "report.json":
            entries = _each(_dig(_json(path), "evaluations"))
            if any(_dig(entry, "source") == source for entry in entries):
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
    """The items of a list or object from a file of unknown origin; empty for any other value."""
    return list(value) if isinstance(value, list | dict) else []


def _sources_of_run(run: Any) -> set[str]:
    data = _dig(run, "settings", "data")
    mixed = _each(_dig(data, "mix"))
    return {str(_dig(data, "source")), *(str(_dig(entry, "source")) for entry in mixed)}


def _first_line(path: Path) -> dict[str, Any]:
    """The first line of a file as an object, whatever its name: an interrupted write leaves another name."""
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
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())
