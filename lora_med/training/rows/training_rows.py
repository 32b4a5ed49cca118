"""The rows of a run: on disk, all of them in memory, or the first row of a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasets import Dataset

from lora_med.config.schema import TrainSettings
from lora_med.errors import DataError, SettingsError
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows.arrow_rows import ArrowRows, hash_rows
from lora_med.training.rows.batches import Stream, make_rows, tokens_a_row
from lora_med.training.rows.packing import pack
from lora_med.training.rows.shared_prefix_rows import SharedPrefix, join_shared_prefixes


@dataclass(frozen=True)
class TrainingRows:
    """The rows to train on. Of a `stream`, `rows` holds only the first row, which TRL inspects."""

    rows: Dataset
    stream: Stream | None = None
    known_digest: str | None = None

    def digest(self) -> str | None:
        """SHA-256 of every token id and label in order, for processes and runs to compare; None for a stream."""
        if self.stream is not None:
            return None
        return self.known_digest or hash_rows(self.rows)

    def steps_per_epoch(self, settings: TrainSettings, processes: int) -> int | None:
        """Optimizer steps in an epoch; None for a stream."""
        if self.stream is not None:
            return None
        rows_per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * processes
        return math.ceil(len(self.rows) / rows_per_step)


def training_rows(documents: Iterable[Tokens] | ArrowRows, settings: TrainSettings) -> TrainingRows:
    """The rows on disk as they are, or those of a list of documents or of a re-iterable stream.

    Raises:
        DataError: there is no document.
        SettingsError: a stream with `share_context`.
    """
    if isinstance(documents, ArrowRows):
        return TrainingRows(documents.rows, known_digest=documents.digest)
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


def validation_rows(documents: Iterable[Tokens] | ArrowRows, settings: TrainSettings) -> Dataset | None:
    """The rows to validate on, or None where there are none."""
    if isinstance(documents, ArrowRows):
        return documents.rows if len(documents.rows) else None
    held_out = list(documents)
    return rows_in_memory(held_out, settings) if held_out else None


def row_lengths(documents: Sequence[Tokens] | ArrowRows | None, settings: TrainSettings) -> tuple[list[int], float]:
    """Tokens of each row that is trained on, and the share of them that is trained.

    Where the documents are not known, each row of a step counts as full and completely trained.
    """
    if isinstance(documents, ArrowRows):
        lengths = tokens_a_row(documents.rows).tolist()
        return lengths, documents.trained_tokens / sum(lengths)
    if not documents:
        return [settings.max_length] * (
            settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        ), 1.0
    joined = join_shared_prefixes(documents, settings.max_length) if settings.share_context else documents
    rows = pack(joined, settings.max_length) if settings.packing else [[document] for document in joined]
    lengths = [sum(len(document.input_ids) for document in row) for row in rows]
    return lengths, sum(sum(document.trained) for document in joined) / sum(lengths)


def segment_lengths(documents: Sequence[Tokens], settings: TrainSettings) -> list[tuple[int, ...]]:
    """The length of each document; with `share_context`, the lengths of each shared prefix and its continuations."""
    joined = join_shared_prefixes(documents, settings.max_length) if settings.share_context else documents
    return [row.lengths if isinstance(row, SharedPrefix) else (len(row.input_ids),) for row in joined]
