"""Which patients take part in a step, and their rows as passes that keep them separate.

Each patient takes part with the same probability, independently of the others and of earlier steps (Poisson sampling).
So a step may have more patients than expected, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from lora_med.training.private.noise_key import NoiseKey
from lora_med.training.rows.batches import Collator, Row, RowLoader

Positions = Callable[[torch.Tensor], torch.Tensor]


class PatientDraws(Sampler[list[int]]):
    """The row numbers of each step, epoch by epoch; all rows of a patient who takes part.

    Args:
        patients: the number of the patient of each row.
        rate: the probability with which a patient takes part.
        steps: in an epoch.
    """

    def __init__(self, patients: Sequence[int], *, rate: float, steps: int, key: NoiseKey) -> None:
        of_row = np.asarray(patients)
        order = np.argsort(of_row, kind="stable")
        _, starts = np.unique(of_row[order], return_index=True)
        self.rows: list[NDArray[np.int64]] = np.split(order, starts[1:])
        self.rate, self.steps, self.key = rate, steps, key
        self.epoch = 0
        self.batch_sampler = self  # where transformers looks for set_epoch when it skips batches to resume

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int) -> None:
        """Draw for the steps of this epoch from the next pass on."""
        self.epoch = epoch

    def draw(self, step: int) -> list[int]:
        """The numbers of the patients who take part in a step of the run."""
        chances = self.key.generator("patients", step).random(len(self.rows))
        return np.flatnonzero(chances < self.rate).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.epoch * self.steps, (self.epoch + 1) * self.steps):
            yield [int(row) for patient in self.draw(step) for row in self.rows[patient]]


class DrawLoader(RowLoader):
    """A data loader of draws."""

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers at the start of every epoch."""
        if isinstance(self.batch_sampler, PatientDraws):
            self.batch_sampler.set_epoch(epoch)


@dataclass(frozen=True)
class Pass:
    """The tensors of one forward pass over rows of one or several patients.

    `positions` are those of the labeled tokens, flattened, and `weights` what each of them counts in the loss of its
    patient. `spans` are the tokens of each patient, as first and last plus one, flattened too.
    """

    inputs: dict[str, Any]
    labels: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor
    spans: tuple[tuple[int, int], ...]


class DrawCollator:
    """The rows of a step as groups of patients, each group one or several passes.

    Patients share a pass while they have at most `rows` rows together. A patient with more rows has several passes
    alone.

    Args:
        patients: the number of the patient of each row.
        collator: makes tensors of rows.
        positions: finds the labeled tokens that are scored.
        rows: the most rows of a pass.
    """

    def __init__(self, patients: Sequence[int], collator: Collator, positions: Positions, rows: int) -> None:
        self.patients, self.collator, self.positions, self.rows = patients, collator, positions, rows

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """`groups`, each a list of passes, and `input_ids`, all tokens of the step, by which tools count them."""
        tokens = [token for row in rows for token in row["input_ids"]]
        return {
            "groups": [self._passes(group) for group in self._groups(rows)],
            "input_ids": torch.tensor(tokens, dtype=torch.long),
        }

    def _groups(self, rows: Sequence[Row]) -> list[list[list[Row]]]:
        """The rows of each patient, in groups."""
        by_patient: dict[int, list[Row]] = {}
        for row in rows:
            by_patient.setdefault(self.patients[row["number"]], []).append(row)
        groups: list[list[list[Row]]] = []
        size = 0
        for own in by_patient.values():
            if not groups or size + len(own) > self.rows:
                groups.append([])
                size = 0
            groups[-1].append(own)
            size += len(own)
        return groups

    def _passes(self, group: Sequence[Sequence[Row]]) -> list[Pass]:
        if len(group) > 1:
            return [self._pass(group, [len(own) for own in group])]
        (own,) = group
        starts = range(0, len(own), self.rows)
        return [self._pass([own[start : start + self.rows]], [len(own)]) for start in starts]

    def _pass(self, group: Sequence[Sequence[Row]], rows_of_patient: Sequence[int]) -> Pass:
        """A pass over rows of some patients, who have so many rows in all."""
        inputs = self.collator([row for own in group for row in own])
        labels = inputs.pop("labels")
        positions = self.positions(labels)
        lengths = [len(row["input_ids"]) for own in group for row in own]
        if not self.collator.flat:
            lengths = [labels.shape[1]] * len(lengths)
        ends = np.cumsum(lengths)
        row_of = torch.from_numpy(np.searchsorted(ends, positions.numpy(), side="right"))
        counts = torch.bincount(row_of, minlength=len(ends)).clamp(min=1)
        shares = torch.tensor([1 / total for own, total in zip(group, rows_of_patient, strict=True) for _ in own])
        last = ends[np.cumsum([len(own) for own in group]) - 1].tolist()
        spans = tuple(zip([0, *last[:-1]], last, strict=True))
        return Pass(inputs, labels, positions, (shares / counts)[row_of], spans)
