"""What the state of the machine does to a process: a closed stream, a deleted working directory, a forbidden path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lora_med.errors import InputMissingError, LoraMedError
from lora_med.files import unreadable


def check_working_directory() -> None:
    """Stop if the working directory was deleted: relative paths mean nothing, and torch ends the process as it loads.

    Raises:
        InputMissingError: it is gone.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputMissingError("the working directory was deleted", fix="cd to a folder that exists") from error


def machine_error(error: Exception) -> LoraMedError | None:
    """An error that the machine's state explains, whatever raised it: a path that may not be used."""
    if isinstance(error, PermissionError) and error.filename is not None:
        path = Path(os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename))
        return unreadable(error, path)
    return None


def open_streams() -> None:
    """Give each standard stream that the caller closed (`>&-`) a place, so that no file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - for good
