"""The rows of a run, prepared once a machine: opened where they are on disk, else made by one process for all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.config.schema import TrainSettings
from lora_med.training.preparation.once_a_machine import once_a_machine
from lora_med.training.preparation.opened_corpus import OpenedRecords
from lora_med.training.preparation.prepared_names import FOLDER, LOCK
from lora_med.training.preparation.preparer import Preparer, cores
from lora_med.training.preparation.row_files import RowFile, write_row_file
from lora_med.training.preparation.row_kinds import RowKind
from lora_med.training.rows.arrow_rows import ArrowRows, no_rows, open_arrow_rows
from lora_med.training.rows.token_cache import (
    prepared_path,
)

LEAST_RECORDS = 4096  # below, starting a process takes longer than tokenizing
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """How the rows of a run are prepared: `key` identifies its data (`data_key`), `marks` its tokenizer."""

    train: TrainSettings
    key: str
    marks: Sequence[str]
    preparer: Preparer

    def rows(self, records: Iterable[Any], kind: RowKind, what: str) -> ArrowRows:
        """The rows of the split called `what`.

        Raises:
            PreflightError: they would train something other than what is meant.
            LoraMedError: as the kind of row raises it.
            StoppedError: a process that prepared them was ended from outside.
            DiskError, OutputError: they cannot be written.
        """
        path = self.path(kind, what)
        file = RowFile(path, kind, what, self.train.packing, self.train.share_context)
        is_new = False

        def make() -> None:
            nonlocal is_new
            is_new = True
            if isinstance(records, OpenedRecords):
                records.write_rows(file)
                return
            held = records if isinstance(records, Sequence) else list(records)
            if len(held) < LEAST_RECORDS or cores() < 2:
                write_row_file(held, file, 1)
            else:
                logger.info("%s: %d records, tokenized by %d processes", what, len(held), cores())
                self.preparer.write(held, file)

        lock = Path(self.train.output_dir) / FOLDER / LOCK
        rows = once_a_machine(lock, f"the {what} rows", lambda: open_arrow_rows(path), make)
        if not is_new:
            logger.info("%s: %d rows that are on disk", what, len(rows.rows))
            kind.log(rows.report, rows.warnings, what)
        return rows

    def validation(self, records: Any, kind: RowKind, share: float) -> ArrowRows:
        """The rows of the validation split; none where its `share` is 0. Raises as `rows`."""
        if share or len(records):
            return self.rows(records, kind, "validation")
        logger.warning("data.validation_share is 0: nothing is validated, and the last adapter is the result")
        return no_rows()

    def path(self, kind: RowKind, what: str) -> Path:
        """Where the rows are, without a suffix: named by all that decides them."""
        options = [self.train.packing, self.train.share_context]
        return prepared_path(Path(self.train.output_dir), self.key, what, *kind.marks(), *self.marks, *options)
