"""`-` among the paths: standard input, saved in a private file while it is read, for sources read more than once."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lora_med.errors import SettingsError
from lora_med.files import destination, disk_errors
from lora_med.folders import held, sweep_folders

SPOOL = "lora-med-stdin"  # the folder's name begins and ends so that `sweep_folders` finds it
StdinName = Annotated[
    str | None, typer.Option(metavar="NAME", help="For the path -: a file name for standard input, with its ending.")
]


@contextmanager
def spooled(paths: Sequence[str], name: str | None, suffix: str, beside: Path) -> Iterator[list[str]]:
    """The paths, `-` replaced by a file with all of standard input, its owner's alone and gone afterwards.

    Args:
        name: the file's name, which determines formats and identifiers; None makes it `stdin` with `suffix`.
        beside: where the result is written; the file is there meanwhile, as it may be as private. Beside a device or
            pipe it is in the system's folder for temporary files. What a killed read left there is removed.

    Raises:
        SettingsError: the name is a path.
        DiskError, OutputError: it cannot be written.
    """
    target, is_stream = destination(beside)
    parent = Path(tempfile.gettempdir()) if is_stream else target.parent
    sweep_folders(parent / SPOOL)
    if "-" not in paths:
        yield list(paths)
        return
    name = name or f"stdin{suffix}"
    if Path(name).name != name:
        raise SettingsError(f"{name!r} is not a file name", where="--stdin-filename", fix="give a name without folder")
    with disk_errors(beside):
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{SPOOL}.", suffix=".tmp", dir=parent)
    with folder as made, held(Path(made)):
        path = Path(made) / name
        with disk_errors(path), open(path, "wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        yield [str(path) if listed == "-" else listed for listed in paths]
