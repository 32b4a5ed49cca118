"""Files to write that are no inputs: what a command reads is never written over, and never written among."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lora_med.errors import OutputError

if TYPE_CHECKING:
    from lora_med.data.source import Source

FIX = "name another file, outside of what is read"


def check_no_input(out: Path, files: Sequence[Path | str]) -> None:
    """Refuse to write one of the `files` that are read, by whatever name: a link, another spelling, a hard link.

    Raises:
        OutputError: `out` is one of them.
    """
    for file in files:
        path = Path(file).expanduser()
        if _is_regular(out) and path.exists() and out.samefile(path):
            raise OutputError(f"the file to write is an input, {path.name}", where=str(out), fix=FIX)


def check_output(outs: Sequence[Path], source: Source, patterns: Sequence[str], hub_split: str = "train") -> None:
    """Refuse to write what `source` reads from `patterns`, or would read from them the next time.

    Raises:
        OutputError: one of `outs` is an input, or in a folder or glob pattern that is read and would be read with it.
        SettingsError, InputMissingError: as `find_inputs`.
    """
    from lora_med.data.formats.find_inputs import find_inputs

    named = [pattern for pattern in patterns if pattern != "-"]
    inputs = [item for item in find_inputs(source, named, hub_split) if isinstance(item, Path)] if named else []
    endings = (*source.suffixes, *(f"{suffix}.gz" for suffix in source.suffixes))
    for out in outs:
        if "-" in patterns and _is_regular(out) and os.path.samestat(out.stat(), os.fstat(0)):
            raise OutputError("the file to write is standard input", where=str(out), fix=FIX)
        check_no_input(out, inputs)
        for pattern in named:
            if _would_be_read(out, pattern, endings):
                raise OutputError(f"the file to write would be read from {pattern!r}", where=str(out), fix=FIX)


def _is_regular(path: Path) -> bool:
    return path.exists() and stat.S_ISREG(path.stat().st_mode)


def _would_be_read(out: Path, pattern: str, endings: tuple[str, ...]) -> bool:
    path = Path(pattern).expanduser()
    places = {Path(os.path.realpath(out.parent)) / out.name, Path(os.path.realpath(out))}
    if path.is_dir():
        folder = os.path.realpath(path)
        return any(
            place.is_relative_to(folder) and place.name.lower().endswith(endings) and not place.name.startswith("._")
            for place in places
        )
    if path.exists() or not glob.has_magic(pattern):
        return False
    parts = Path(os.path.abspath(path)).parts  # noqa: PTH100 - a pattern is no path to resolve
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    folder = Path(os.path.realpath(Path(*parts[:first])))
    return any(
        place.is_relative_to(folder) and _matches(place.relative_to(folder).parts, parts[first:]) for place in places
    )


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the names match the patterns one by one; `**` stands for any number of them."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_matches(names[start:], patterns[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatch(names[0], patterns[0]) and _matches(names[1:], patterns[1:])


def is_stdout(out: Path) -> bool:
    """Whether `out` leads to standard output, so that what a command reports belongs on standard error."""
    return out.exists() and os.path.samestat(out.stat(), os.fstat(1))
