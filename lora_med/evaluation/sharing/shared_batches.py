"""The batches of an evaluation, shared by several processes; each gets all results, as if it had run alone.

Batches are made of all items, whatever the number of processes, so that each batch gives the same numbers wherever it
runs. Batch i of a call runs in process i modulo N.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.evaluation.sharing.journal import Batch, Journal
from lora_med.processes.together import mark

Gather = Callable[[str], list[str]]
PIECE = 1 << 22  # characters of one message between processes
logger = logging.getLogger(__name__)


def alone(value: str) -> list[str]:
    """The values of all processes, where there is one."""
    return [value]


class SharedBatches:
    """Runs batches as `RunBatches` says; every process makes the same calls in the same order.

    Args:
        rank: of this process, from 0.
        processes: how many share the batches.
        gather: gives the texts of all processes by rank, once all have called it.
        journal: where results are written as they are made.
        scored: results of an earlier, killed evaluation, from `journal`.
    """

    def __init__(
        self,
        *,
        rank: int = 0,
        processes: int = 1,
        gather: Gather = alone,
        journal: Journal | None = None,
        scored: Mapping[Batch, list[Any]] | None = None,
    ) -> None:
        self.rank = rank
        self._processes, self._gather, self._journal = processes, gather, journal
        self._scored = {key: values for key, values in (scored or {}).items() if key[1] % processes == rank}
        self._calls = 0

    def __call__(
        self, batches: Sequence[list[int]], compute: Callable[[list[int]], list[Any]], *, written: bool = False
    ) -> list[list[Any]]:
        """The results of all batches, in their order; `compute` runs on this process's own that are not scored yet."""
        call, self._calls = self._calls, self._calls + 1
        mark("scoring", busy=True)
        own: dict[int, list[Any]] = {}
        for number in range(self.rank, len(batches), self._processes):
            values = self._scored.pop((call, number), None)
            if values is None or len(values) != len(batches[number]):
                values = [encode(value) for value in compute(batches[number])]
                if self._journal is not None:
                    self._journal.append(call, number, values, written=written)
            own[number] = values
        mark("waiting for the scores of the others")
        shares = [json.loads(text) for text in self._gather_long(json.dumps(list(own.items())))]
        mark("between two subjects", busy=True)
        results = {number: [decode(value) for value in values] for share in shares for number, values in share}
        return [results[number] for number in range(len(batches))]

    def _gather_long(self, text: str) -> list[str]:
        """The texts of all processes, sent in pieces of equal number."""
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        rounds = max(int(count) for count in self._gather(str(len(pieces))))
        gathered = [self._gather(pieces[number] if number < len(pieces) else "") for number in range(rounds)]
        return ["".join(parts) for parts in zip(*gathered, strict=True)]


def encode(value: Any) -> Any:
    """A result as JSON: an array as its exact bytes, in float32 where that loses nothing; a list as it is."""
    if not isinstance(value, np.ndarray):
        return value
    with np.errstate(over="ignore"):
        short = value.astype("<f4")
    exact = short if np.array_equal(short.astype("<f8"), value, equal_nan=True) else value.astype("<f8")
    return {exact.dtype.name: base64.b64encode(exact.tobytes()).decode()}


def decode(value: Any) -> Any:
    """The result that `encode` received."""
    if not isinstance(value, dict):
        return value
    ((name, text),) = value.items()
    return np.frombuffer(base64.b64decode(text), dtype={"float32": "<f4", "float64": "<f8"}[name]).astype(np.float64)


@contextmanager
def shared_batches(
    folder: Path,
    facts: Mapping[str, Any],
    *,
    rank: int = 0,
    processes: int = 1,
    gather: Gather = alone,
    with_written: bool,
) -> Iterator[SharedBatches]:
    """The batches of one evaluation; its journal is in `folder`, and goes once the block has ended without an error.

    Args:
        folder: the output folder.
        facts: JSON values of everything that makes the results; a journal of other facts is not used.
        with_written: whether written answers may be in the journal, which repeat what credentialed texts say.

    Raises:
        OutputError: the folder is not writable.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    journal = Journal(folder, rank, digest, with_written=with_written)
    scored = journal.read()
    if scored:
        logger.info("%d batches are scored already, by an evaluation that was stopped: it goes on", len(scored))
    gather("read")  # nobody changes a file that another has not read
    with journal.writing():
        yield SharedBatches(rank=rank, processes=processes, gather=gather, journal=journal, scored=scored)
    mark("at the end of the evaluation")
    gather("reported")
    journal.remove()
