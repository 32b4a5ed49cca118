"""Rows that are on disk: Arrow files mapped into memory, which a training process opens and never holds."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from datasets import Dataset, Features, List, Value

from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.examined import from_runs
from lora_med.training.preparation.prepared_names import FACTS, ROWS
from lora_med.training.preparation.row_files import ROWS_A_BATCH, RowDigest

COLUMNS = Features(
    {"input_ids": List(Value("int32")), "labels": List(Value("int32")), "seq_lengths": List(Value("int32"))}
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArrowRows:
    """The checked rows of a split, mapped into memory, and what a run must know of them.

    `digest` is the SHA-256 of all token ids and labels in order (`hash_rows`). `shown` are the first complete documents
    where they may be shown. `report` and `warnings` are what preparing them found. `groups` has the number of the group
    of each row, where they were counted.
    """

    rows: Dataset = field(repr=False)
    digest: str
    trained_tokens: int
    report: dict[str, Any]
    warnings: list[str]
    shown: list[Tokens] = field(repr=False)
    first: list[list[int]] = field(repr=False)
    groups: list[int] = field(default_factory=list, repr=False)

    @property
    def streamed(self) -> bool:
        """Whether the rows are read again at every pass: never."""
        return False

    def sample(self) -> list[list[int]]:
        """Token ids of the first documents, for an initialization that looks at data (EVA)."""
        return self.first


def open_arrow_rows(path: Path) -> ArrowRows | None:
    """The rows of `path`, which has no suffix; None where they are not there, or not as they were written."""
    rows_file, facts_file = (path.with_name(path.name + suffix) for suffix in (ROWS, FACTS))
    try:
        facts = json.loads(facts_file.read_bytes())
        state = rows_file.stat()
        if state.st_size != facts["bytes"]:
            raise ValueError
        rows = Dataset.from_file(str(rows_file))
        if state.st_mtime_ns != facts["modified_ns"] and hash_rows(rows) != facts["rows"]:
            raise ValueError
        shown = [Tokens(uid, ids, from_runs(runs)) for uid, ids, runs in facts["shown"]]
        return ArrowRows(
            rows,
            facts["rows"],
            facts["trained_tokens"],
            facts["report"],
            facts["warnings"],
            shown,
            facts["sample"],
            facts.get("groups", []),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("%s is damaged: the rows are prepared again", rows_file.name)
        with suppress(OSError):
            facts_file.unlink()
        return None


def no_rows() -> ArrowRows:
    """The rows of a split that has none, as a run may want for its validation."""
    rows = Dataset.from_dict({name: [] for name in COLUMNS}, features=COLUMNS)
    return ArrowRows(rows, RowDigest().hexdigest(), 0, {}, [], [], [])


def hash_rows(rows: Dataset) -> str:
    """SHA-256 over every token id and label in order: equal hashes train the same thing."""
    digest = RowDigest()
    for block in rows.with_format("arrow").iter(batch_size=ROWS_A_BATCH):
        table: Any = block
        shared = table.column("shared_prefixes").to_pylist() if "shared_prefixes" in table.column_names else []
        digest.add([numpy.concatenate(numbers_of(table.column(name))) for name in COLUMNS], shared)
    return digest.hexdigest()


def numbers_of(column: Any) -> list[Any]:
    """The numbers of an Arrow column of lists, end to end, as one array for each chunk."""
    return [chunk.flatten().to_numpy() for chunk in column.chunks]
