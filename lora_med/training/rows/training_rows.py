"""The rows of a run: all of them in memory, or the first row of a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasets import Dataset

from lora_med.config.schema import TrainSettings
from lora_med.errors import DataError, SettingsError
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows.batches import Stream, make_rows
from lora_med.training.rows.shared_prefix_rows import join_shared_prefixes


@dataclass(frozen=True)
class TrainingRows:
    """The rows to train on. Of a `stream`, `rows` holds only the first row, which TRL inspects."""

    rows: Dataset
    stream: Stream | None = None

    def steps_per_epoch(self, settings: TrainSettings, processes: int) -> int | None:
        """Optimizer steps in an epoch; None for a stream."""
        if self.stream is not None:
            return None
        rows_per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * processes
        return math.ceil(len(self.rows) / rows_per_step)


def training_rows(documents: Iterable[Tokens], settings: TrainSettings) -> TrainingRows:
    """The rows of a list of documents or of a re-iterable stream.

    Raises:
        DataError: there is no document.
        SettingsError: a stream with `share_context`.
    """
    if isinstance(documents, Sequence):
        if not documents:
            raise DataError("there is nothing to train on: 0 rows", where="the training split")
        return TrainingRows(rows_in_memory(documents, settings))
    if settings.share_context:
        raise SettingsError(
            "the rows of a stream cannot be joined by a shared prefix",
            where="train.share_context",
            fix="data.streaming=false",
        )
    stream = Stream(documents, settings.max_length, settings.packing)
    return TrainingRows(stream.first(), stream)


def rows_in_memory(documents: Sequence[Tokens], settings: TrainSettings) -> Dataset:
    """The rows of documents in memory; with `share_context`, documents with a common beginning are joined."""
    joined = join_shared_prefixes(documents, settings.max_length) if settings.share_context else documents
    return make_rows(joined, settings.max_length, settings.packing)
