"""Rows of tokens in, batches out: packed without waste, in an order that any number of processes shares.

A row is one document, or with packing several end to end. Where the attention separates documents, a batch is one long
row without padding; otherwise rows are padded to the longest. The order of an epoch depends only on the seed and the
epoch. The k-th batch holds the same rows for any number of processes, and each process gets about as many tokens as the
others. The last batch of an epoch may be short, so that every row counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from datasets import Dataset, Features, List, Value
from torch.utils.data import DataLoader, IterableDataset, Sampler
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from lora_med.errors import DataError
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows.arrow_rows import COLUMNS
from lora_med.training.rows.packing import pack
from lora_med.training.rows.shared_prefix_rows import SharedPrefix

UNTRAINED = -100
SHARED_PREFIX_COLUMNS = Features({**COLUMNS, "shared_prefixes": List(List(Value("int32")))})
Row = dict[str, Any]


def to_row(documents: Sequence[Tokens]) -> Row:
    """One row holding `documents` end to end; labels are -100 where a token is not trained.

    Where a document has a shared prefix, `shared_prefixes` holds for each document the lengths of its prefix and
    continuations; for a plain document an empty list.
    """
    shared = any(isinstance(document, SharedPrefix) for document in documents)
    lengths = [list(document.lengths) if isinstance(document, SharedPrefix) else [] for document in documents]
    return {
        "input_ids": [token for document in documents for token in document.input_ids],
        "labels": [
            target if trained else UNTRAINED
            for document in documents
            for target, trained in zip(document.targets, document.trained, strict=True)
        ],
        "seq_lengths": [len(document.input_ids) for document in documents],
        **({"shared_prefixes": lengths} if shared else {}),
    }


@dataclass(frozen=True)
class Stream:
    """Endless rows, pass after pass over `documents`; with packing, each row is filled in reading order."""

    documents: Iterable[Tokens]
    max_length: int
    packing: bool

    def __iter__(self) -> Iterator[Row]:
        while True:
            group: list[Tokens] = []
            size = 0
            for document in self.documents:
                length = len(document.input_ids)
                if group and (not self.packing or size + length > self.max_length):
                    yield to_row(group)
                    group, size = [], 0
                group.append(document)
                size += length
            if not group:
                return
            yield to_row(group)

    def first(self) -> Dataset:
        """The first row alone.

        Raises:
            DataError: the stream is empty.
        """
        row = next(iter(self), None)
        if row is None:
            raise DataError("there is nothing to train on: 0 rows", where="the training split")
        return Dataset.from_dict({name: [row[name]] for name in COLUMNS}, features=COLUMNS)


def make_rows(documents: Sequence[Tokens], max_length: int, packing: bool) -> Dataset:
    """The rows of a corpus in memory, four bytes a token."""
    groups = pack(documents, max_length) if packing else [[document] for document in documents]
    rows = [to_row(group) for group in groups]
    columns = SHARED_PREFIX_COLUMNS if any("shared_prefixes" in row for row in rows) else COLUMNS
    blank: list[Any] = []
    return Dataset.from_dict({name: [row.get(name, blank) for row in rows] for name in columns}, features=columns)


def tokens_a_row(rows: Dataset) -> Any:
    """The number of tokens of each row, shape (rows,)."""
    lengths = [numpy.diff(chunk.offsets.to_numpy()) for chunk in rows.data.column("input_ids").chunks]
    return numpy.concatenate([numpy.zeros(0, numpy.int32), *lengths])


@dataclass(frozen=True)
class Share:
    """This process's rank, and how many processes share every batch."""

    rank: int = 0
    processes: int = 1


class BatchOrder(Sampler[list[int]]):
    """Row numbers of this process's batches, epoch by epoch; an empty list where the last batch has no row for it.

    Args:
        lengths: tokens of each row; processes share a batch so that each has about as many, because all wait for the
            one with the most.
        batch_size: the most rows that a process takes at once.
        seed: of the order; None for the order of the rows.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, share: Share, *, seed: int | None) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.share = share
        self.seed = seed
        self.epoch = 0
        self.batch_sampler = self  # where transformers looks for set_epoch when it skips batches to resume

    def __len__(self) -> int:
        return -(-len(self.lengths) // (self.batch_size * self.share.processes))

    def set_epoch(self, epoch: int) -> None:
        """Use the order of this epoch from the next pass on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(len(self.lengths))
        if self.seed is not None:
            order = torch.randperm(len(self.lengths), generator=torch.Generator().manual_seed(self.seed + self.epoch))
        together = self.batch_size * self.share.processes
        for batch in order.split(together):
            yield share_out(batch.tolist(), self.lengths, self.share.processes, self.batch_size)[self.share.rank]


def share_out(rows: Sequence[int], lengths: Sequence[int], processes: int, most: int) -> list[list[int]]:
    """The rows of one batch for each process: at most `most` rows, about equal tokens, in their original order.

    The rows are handed out longest first, each to the process with the fewest tokens so far.
    """
    if processes == 1:
        return [list(rows)]
    shares: list[list[int]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for index in sorted(range(len(rows)), key=lambda index: -lengths[rows[index]]):
        open_ranks = (rank for rank in range(processes) if len(shares[rank]) < most)
        least = min(open_ranks, key=lambda rank: (tokens[rank], rank))
        shares[least].append(index)
        tokens[least] += lengths[rows[index]]
    return [[rows[index] for index in sorted(share)] for share in shares]


class Numbered(torch.utils.data.Dataset[list[Row]]):
    """Batches by their row numbers, each fetched in one call."""

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> list[Row]:
        if not numbers:
            return []
        batch: dict[str, list[Any]] = self.rows[numbers]
        return [
            {"number": number, **{name: values[index] for name, values in batch.items()}}
            for index, number in enumerate(numbers)
        ]


class _Streamed(IterableDataset[list[Row]]):
    """This process's batches of an endless stream of rows."""

    def __init__(self, rows: Iterable[Row], batch_size: int, share: Share) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.share = share

    def __iter__(self) -> Iterator[list[Row]]:
        batch: list[Row] = []
        number = 0
        for row in self.rows:
            batch.append(row)
            if len(batch) == self.batch_size:
                if number % self.share.processes == self.share.rank:
                    yield batch
                batch, number = [], number + 1


def document_lengths(rows: Sequence[Row]) -> list[tuple[int, ...]]:
    """The length of each document of a batch; with a shared prefix, the lengths of prefix and continuations."""
    return [
        tuple(shared) or (length,)
        for row in rows
        for length, shared in zip(
            row["seq_lengths"], row.get("shared_prefixes") or [[]] * len(row["seq_lengths"]), strict=True
        )
    ]


def positions(lengths: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Each token's position in its own document, shape (1, tokens); a continuation starts where its prefix ends."""
    ranges = []
    for prefix, *continuations in lengths:
        ranges += [torch.arange(prefix), *(torch.arange(prefix, prefix + length) for length in continuations)]
    return torch.cat(ranges)[None]


class Collator:
    """Rows to tensors: one long row with the documents' offsets if `flat`, else padded rows with an attention mask."""

    def __init__(
        self, pad_token: int, *, flat: bool, unmasked: bool, numbered: bool = False, shifted: bool = True
    ) -> None:
        """With `shifted`, labels are of the token before, so that the first of a flat document is of none."""
        self.flat = flat
        self.shifted = shifted
        self.numbered = numbered  # whether the batch includes the numbers and lengths of its rows
        self.unmasked = unmasked
        self.blank: Row = {"input_ids": [pad_token], "labels": [UNTRAINED], "seq_lengths": [1]}
        self.collate = DataCollatorForLanguageModeling(pad_token_id=pad_token, padding_free=flat)

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """The model's inputs; without rows, one padding token that is not trained."""
        batch: dict[str, Any] = dict(self.collate(rows or [self.blank]))
        batch.pop("seq_idx", None)
        if self.flat and not self.shifted:
            batch["labels"] = torch.tensor([[label for row in rows or [self.blank] for label in row["labels"]]])
        if self.flat and self.unmasked:
            # All ones: then transformers builds no dense mask, and our attention uses the document lengths.
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])
            batch["document_lengths"] = document_lengths(rows or [self.blank])
            batch["position_ids"] = positions(batch["document_lengths"])
            if self.numbered and rows and all("number" in row for row in rows):
                batch["rows"] = [(row["number"], len(row["input_ids"])) for row in rows]
        return batch


class RowLoader(DataLoader[Any]):
    """A data loader whose order follows the epoch; it does not touch the global random state."""

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers at the start of every epoch."""
        if isinstance(self.batch_sampler, BatchOrder):
            self.batch_sampler.set_epoch(epoch)


def load_rows(rows: Dataset, collator: Collator, *, batch_size: int, share: Share, seed: int | None) -> RowLoader:
    """Batches of rows in memory, shuffled anew each epoch if `seed` is given."""
    # One process takes complete batches and does not need the lengths.
    lengths: Any = tokens_a_row(rows) if share.processes > 1 else numpy.zeros(len(rows), numpy.int32)
    order = BatchOrder(lengths, batch_size, share, seed=seed)
    generator = torch.Generator().manual_seed(seed or 0)
    return RowLoader(Numbered(rows), batch_sampler=order, collate_fn=collator, generator=generator)  # type: ignore[arg-type]


def load_stream(rows: Iterable[Row], collator: Collator, *, batch_size: int, share: Share) -> RowLoader:
    """Batches of a stream, in reading order."""
    stream = _Streamed(rows, batch_size, share)
    return RowLoader(stream, batch_size=None, collate_fn=collator, generator=torch.Generator().manual_seed(0))
