"""The loss of direct preference optimization, and the reference that it compares with.

    loss = -log sigmoid(beta * ((chosen - reference of chosen) - (rejected - reference of rejected)))

Each term is the log-probability of an answer after its prompt, summed over its tokens (Rafailov et al. 2023, equation
7). The reference is the adapter as it was when training began: a new one changes nothing, so the reference is the base;
one that is trained further is its parent. The weights of that start take the place of the present ones for a pass
without gradients. Policy and reference run the same code, so before the first step they are equal bit by bit, also on a
4-bit base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.training.rows.batches import UNTRAINED, Collator, Row

COUNTS = "answer_tokens"  # in a batch: the scored tokens of each answer, chosen and rejected in turn
TIE = 0.5  # what a pair with equal rewards counts in the accuracy: every pair, before the first step


class StartWeights:
    """The trained parameters of a model as they are now, to be put in place later for a pass as the reference."""

    def __init__(self, model: Any) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._start = [parameter.detach().clone() for parameter in self._parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the parameters have the values of the start; no gradient may be computed through them."""
        present = [parameter.data for parameter in self._parameters]
        try:
            for parameter, start in zip(self._parameters, self._start, strict=True):
                parameter.data = start
            yield
        finally:
            for parameter, value in zip(self._parameters, present, strict=True):
                parameter.data = value


class PairCollator:
    """Rows of pairs to tensors: as `collator` makes them of their documents, and with the counts of their answers."""

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """The model's inputs; without rows, one padding token and no answer."""
        documents = [document for row in rows for document in _documents(row)]
        counts = [sum(label != UNTRAINED for label in document["labels"][1:]) for document in documents]
        return {**self.collator(rows if self.collator.flat else documents), COUNTS: counts}


def _documents(row: Row) -> Iterator[Row]:
    """The documents of a row, each as a row of its own."""
    start = 0
    for length in row["seq_lengths"]:
        part = slice(start, start + length)
        yield {"input_ids": row["input_ids"][part], "labels": row["labels"][part], "seq_lengths": [length]}
        start += length


def answer_log_probabilities(nlls: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """The log-probability of each answer, shape (answers): `nlls` of all scored tokens, `counts` of them an answer.

    Each sum is computed by itself, so that a GPU gives the same bits every time.
    """
    if not counts:
        return -nlls  # no pair for this process, and still a part of the graph
    return -torch.stack([part.sum() for part in nlls.split(list(counts))])


@dataclass(frozen=True)
class Rewards:
    """How much likelier than by the reference the answers of pairs are: `beta` times the log-ratios, shape (pairs)."""

    chosen: torch.Tensor
    rejected: torch.Tensor

    @classmethod
    def of(cls, policy: torch.Tensor, reference: torch.Tensor, beta: float) -> Rewards:
        """From the log-probabilities of the answers, chosen and rejected in turn, by policy and reference."""
        ratios = beta * (policy - reference)
        return cls(ratios[::2], ratios[1::2])

    @property
    def margins(self) -> torch.Tensor:
        """What the chosen answer's reward is above the rejected one's."""
        return self.chosen - self.rejected

    @property
    def losses(self) -> torch.Tensor:
        """The loss of each pair; log 2 where policy and reference are equal."""
        return -torch.nn.functional.logsigmoid(self.margins)

    @property
    def wins(self) -> torch.Tensor:
        """1 where the chosen answer has the higher reward, 0 where the rejected one has, TIE where they are equal."""
        margins = self.margins
        return torch.where(margins == 0, torch.full_like(margins, TIE), (margins > 0).to(margins.dtype))
