"""Held-out files that are not found, which a card names relative to its run's folder; and files never written over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lora_med.cli.data.output_file import check_output
from lora_med.errors import InputMissingError

if TYPE_CHECKING:
    from lora_med.workflows.evaluate import Job

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


def check_written(folder: Path, names: Sequence[str], jobs: Sequence[Job]) -> None:
    """Refuse to write files of these names into `folder` over, or among, what the jobs read; as `check_output`."""
    from lora_med.data.catalog import find_source

    for job in jobs:
        check_output(
            [folder / name for name in names],
            find_source(job.settings.source),
            job.settings.paths,
            job.settings.hub_split,
        )
