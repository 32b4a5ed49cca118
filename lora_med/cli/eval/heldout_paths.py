"""Held-out files that are not found: the card names them relative to the folder of the training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lora_med.errors import InputMissingError

PATHS = "data.paths"  # the setting that readers name when a file of it is missing


@contextmanager
def ask_for_data(data: Sequence[str] | None) -> Iterator[None]:
    """Run the block; a missing file that `--data` did not name becomes an error that asks for `--data`.

    Raises:
        InputMissingError: a file is missing.
    """
    try:
        yield
    except InputMissingError as error:
        if error.where != PATHS:
            raise
        if data:
            raise InputMissingError(error.what, where="--data", fix=error.fix) from error
        raise InputMissingError(
            error.what,
            where="the data files of the adapter's card, relative to the folder it was trained in",
            fix="give --data PATH, the same files as seen from this folder",
        ) from error
