"""What the preflight must know of documents: counts, lengths and the first uids, added up block by block."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from lora_med.prompts.fit import chunk, quantiles
from lora_med.prompts.tokens_and_labels import Tokens

SHOWN_ROWS = 3
SHOWN_UIDS = 5


@dataclass
class Uids:
    """How many rows share a property, and the uids of the first five."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, uid: str) -> None:
        """Count one more row."""
        self.count += 1
        if len(self.first) < SHOWN_UIDS:
            self.first.append(uid)

    def merge(self, later: Uids) -> None:
        """Add the rows that come after these."""
        self.count += later.count
        self.first += later.first[: SHOWN_UIDS - len(self.first)]

    def listed(self, shown: Callable[[str], str]) -> str:
        """The first uids, each as it may be shown, and how many more there are."""
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return f"uid {', '.join(map(shown, self.first))}{more}"


@dataclass
class Examined:
    """The facts of complete documents in order, and of the rows that remain of them.

    `silent` rows train nothing, `endless` ones do not end in a trained stop token, `doubled` ones begin twice.
    `chunked`, `dropped` and `refused` are longer than the limit; those refused are among the dropped.
    """

    stops: Collection[int]
    begin: int | None
    max_length: int
    lengths: array[int] = field(default_factory=lambda: array("i"))
    silent: Uids = field(default_factory=Uids)
    endless: Uids = field(default_factory=Uids)
    doubled: Uids = field(default_factory=Uids)
    chunked: Uids = field(default_factory=Uids)
    dropped: Uids = field(default_factory=Uids)
    refused: Uids = field(default_factory=Uids)
    longest_refused: int = 0
    rows: int = 0
    tokens: int = 0
    trained: int = 0
    answers: int = 0
    answers_lost: int = 0
    rows_trimmed: int = 0
    context_lost: int = 0
    tokens_dropped: int = 0
    shown: list[Tokens] = field(default_factory=list)

    def add(self, document: Tokens) -> list[Tokens]:
        """Count a document; returns the rows that remain of it: itself, its chunks, or none."""
        ids, uid, trained = document.input_ids, document.uid, sum(document.trained)
        self.lengths.append(len(ids))
        self.answers += trained
        if document.lost:
            self.rows_trimmed += 1
            self.context_lost += document.lost
        if not trained or (trained == 1 and document.trained[0]):
            self.silent.add(uid)
        end = document.answer_end
        if ids and not (end and ids[end - 1] in self.stops):  # text of a chat template may follow the stop token
            self.endless.add(uid)
        if self.begin is not None and ids[:2] == [self.begin, self.begin]:
            self.doubled.add(uid)
        if len(self.shown) < SHOWN_ROWS:
            self.shown.append(document)
        retained = self._retained(document, trained)
        self.rows += len(retained)
        for row in retained:
            self.tokens += len(row.input_ids)
            self.trained += trained if row is document else sum(row.trained)
        return retained

    def _retained(self, document: Tokens, trained: int) -> list[Tokens]:
        if len(document.input_ids) <= self.max_length:
            return [document]
        if document.running and document.too_long == "chunk_by_section":
            self.chunked.add(document.uid)
            return chunk(document, self.max_length)
        self.dropped.add(document.uid)
        self.answers_lost += trained
        self.tokens_dropped += len(document.input_ids)
        if document.too_long != "drop":
            self.refused.add(document.uid)
            self.longest_refused = max(self.longest_refused, len(document.input_ids))
        return []

    def merge(self, later: Examined) -> None:
        """Add the documents that come after these."""
        self.lengths.extend(later.lengths)
        for name in ("silent", "endless", "doubled", "chunked", "dropped", "refused"):
            getattr(self, name).merge(getattr(later, name))
        for name in ("rows", "tokens", "trained", "answers", "answers_lost", "rows_trimmed", "context_lost"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.tokens_dropped += later.tokens_dropped
        self.longest_refused = max(self.longest_refused, later.longest_refused)
        self.shown += later.shown[: SHOWN_ROWS - len(self.shown)]

    def report(self, shown: Callable[[str], str]) -> dict[str, Any]:
        """Lengths and counts as JSON values; `shown` turns a uid into what may be shown of it."""
        return {
            "documents": len(self.lengths),
            "rows": self.rows,
            "tokens": self.tokens,
            "trained_tokens": self.trained,
            "length_quantiles": quantiles(self.lengths),
            "documents_chunked": self.chunked.count,
            "rows_trimmed": self.rows_trimmed,
            "context_tokens_lost": self.context_lost,
            "rows_dropped": self.dropped.count,
            "tokens_dropped": self.tokens_dropped,
            "share_of_answer_tokens_lost": round(self.answers_lost / self.answers, 6) if self.answers else 0.0,
            "uids_chunked": [shown(uid) for uid in self.chunked.first],
            "uids_dropped": [shown(uid) for uid in self.dropped.first],
        }


def trained_runs(trained: list[bool]) -> list[int]:
    """Which tokens are trained, as run lengths: not trained, trained, not trained, ..."""
    runs = [len(list(run)) for _, run in groupby(trained)]
    return [0, *runs] if trained[:1] == [True] else runs


def from_runs(runs: list[int]) -> list[bool]:
    """The opposite of `trained_runs`."""
    return [number % 2 == 1 for number, length in enumerate(runs) for _ in range(length)]
