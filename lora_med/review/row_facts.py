"""What is known of a training row besides its text: source, labels, whether it is cut, and its near-duplicates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lora_med.audit.baselines import has_shared_options, labels_of
from lora_med.data.record import Question, Record, asked_of
from lora_med.data.splitting.near_duplicates import BATCH, clusters, signatures
from lora_med.prompts.tokens_and_labels import Tokens

USUAL_SIMILARITY = 0.8  # where a run looks for no near-duplicates


@dataclass(frozen=True)
class RowFacts:
    """One row: `twins` are the positions of the rows that are near-duplicates of it, directly or through others."""

    source: str
    labels: tuple[str, ...]
    is_cut: bool
    twins: tuple[int, ...] = ()


@dataclass
class RowNotes:
    """Collects the facts of rows while their records pass by on the way to becoming tokens."""

    max_length: int
    _passing: deque[Record] = field(default_factory=deque)
    _rows: list[tuple[str, Question | tuple[str, ...], bool]] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _signatures: list[Any] = field(default_factory=list)

    def passing(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records, each remembered until its row comes."""
        for record in records:
            self._passing.append(record)
            yield record

    def add(self, tokens: Tokens) -> None:
        """The row of the next record; records before it that gave no row are left out."""
        while (record := self._passing.popleft()).uid != tokens.uid:
            pass
        is_cut = tokens.lost > 0 or len(tokens.input_ids) > self.max_length
        if isinstance(record, Question) and record.options:  # its label depends on the other questions' options
            self._rows.append((record.source, replace(record, contexts=(), explanation=""), is_cut))
        else:
            self._rows.append((record.source, labels_of(record, shared=False), is_cut))
        self._texts.append(asked_of(record))
        if len(self._texts) == BATCH:
            self._digest()

    def facts(self, similarity: float) -> list[RowFacts]:
        """The facts of all rows, in order; two rows at least so similar are near-duplicates."""
        self._digest()
        twins = _twins(self._signatures, similarity or USUAL_SIMILARITY)
        questions = [labels for _, labels, _ in self._rows if isinstance(labels, Question)]
        shared = has_shared_options(questions)
        return [
            RowFacts(source, _labels(labels, shared), is_cut, twins.get(number, ()))
            for number, (source, labels, is_cut) in enumerate(self._rows)
        ]

    def _digest(self) -> None:
        if self._texts:
            self._signatures.append(signatures(self._texts))
            self._texts = []


def _labels(labels: Question | tuple[str, ...], shared: bool) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels_of(labels, shared) if isinstance(labels, Question) else labels))


def _twins(batches: Sequence[Any], similarity: float) -> dict[int, tuple[int, ...]]:
    if not batches:
        return {}
    found = clusters(np.concatenate(batches), similarity)
    return {row: tuple(other for other in sorted(group) if other != row) for group in found for row in group}
