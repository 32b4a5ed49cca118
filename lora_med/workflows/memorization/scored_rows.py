"""Records as the rows that a run trains on, and what the model's passes over them show of each patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_med.audit.memorization.extraction import Written
from lora_med.audit.memorization.membership import Items
from lora_med.config.schema import TrainSettings
from lora_med.data.record import Passage, Record, texts_of
from lora_med.evaluation.likelihood.log_probabilities import ScoredRow
from lora_med.evaluation.likelihood.token_statistics import TokenStatistics, token_statistics
from lora_med.prompts.fit import Refused, chunk, fit_stream
from lora_med.prompts.render import render_stream
from lora_med.prompts.tokens_and_labels import Tokens

MOST_ROWS = 8  # of a patient
LOWEST_SHARE = 0.2  # of the tokens, for Min-K%++


@dataclass(frozen=True)
class PatientRows:
    """The rows of a patient or canary, and the words of its records."""

    uid: str
    text: str
    rows: tuple[PatientRow, ...]


@dataclass(frozen=True)
class PatientRow:
    """One row: its record's uid, its token ids, the positions of the trained ones, and how many of them are known.

    The first token of a row is predicted from nothing, so it is no target, even if it is trained.
    """

    uid: str
    input_ids: tuple[int, ...]
    targets: tuple[int, ...]
    known: int
    lead: int

    @property
    def scored(self) -> ScoredRow:
        """The row as a pass over it is asked for."""
        positions = tuple(position - 1 for position in self.targets)
        return ScoredRow(self.input_ids, positions, self.tokens)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The trained tokens."""
        return tuple(self.input_ids[position] for position in self.targets)


def patient_rows(
    records: Sequence[Record], template: str, tokenizer: Any, train: TrainSettings, *, skip_bad: bool
) -> list[PatientRows]:
    """The rows of each group of records, as a run with these settings trains them; a group without a row is left out.

    At most `MOST_ROWS` rows of a group; running text longer than a row is cut as in training.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    by_group: list[PatientRows] = []
    for group, own in groups.items():
        titles = {record.uid: record.title for record in own if isinstance(record, Passage)}
        refused = Refused(skip_bad)
        rendered = render_stream(own[:MOST_ROWS], template, train.too_long, train.assistant_turns)
        rows: list[PatientRow] = []
        for tokens in fit_stream(rendered, tokenizer, train.max_length, refused):
            for part in _parts(tokens, train.max_length):
                row = _row(part, _title_tokens(titles.get(part.uid, ""), tokenizer) if part.running else 0)
                rows += [row] if row.targets else []
        if rows:
            text = "\n".join(part for record in own[:MOST_ROWS] for part in texts_of(record))
            by_group.append(PatientRows(group, text, tuple(rows[:MOST_ROWS])))
    return by_group


def _parts(tokens: Tokens, max_length: int) -> list[Tokens]:
    if len(tokens.input_ids) <= max_length:
        return [tokens]
    return chunk(tokens, max_length) if tokens.running else []


def _title_tokens(title: str, tokenizer: Any) -> int:
    return len(tokenizer(f"{title}\n", add_special_tokens=False)["input_ids"]) if title else 0


def _row(tokens: Tokens, known: int) -> PatientRow:
    targets = tuple(position for position, trained in enumerate(tokens.trained) if trained and position)
    lead = int(bool(tokens.trained) and tokens.trained[0])
    return PatientRow(tokens.uid, tuple(tokens.input_ids), targets, known, lead)


@dataclass(frozen=True)
class Passes:
    """What a model's pass over the rows of some patients showed, row by row."""

    by_row: tuple[tuple[TokenStatistics, ...], ...]


def run_passes(model: Any, patients: Sequence[PatientRows]) -> Passes:
    """One pass of the model over every row of the patients.

    Raises:
        DivergedError: the model returns values that are not finite.
    """
    flat = iter(token_statistics(model, [row.scored for patient in patients for row in patient.rows]))
    return Passes(tuple(tuple(next(flat) for _ in patient.rows) for patient in patients))


def membership_items(
    patients: Sequence[PatientRows],
    adapter: Passes,
    base: Passes,
    *,
    is_member: Sequence[bool],
    repeats: Sequence[int],
) -> Items:
    """The patients with the score of each attack, over all tokens of their rows."""
    scores: list[Mapping[str, float]] = [
        _scores(adapter_rows, base_rows) for adapter_rows, base_rows in zip(adapter.by_row, base.by_row, strict=True)
    ]
    names = scores[0].keys() if scores else ()
    return Items(
        uids=tuple(patient.uid for patient in patients),
        is_member=np.array(is_member, dtype=bool),
        repeats=np.array(repeats, dtype=np.int64),
        texts=tuple(patient.text for patient in patients),
        scores={name: np.array([each[name] for each in scores]) for name in names},
    )


def _scores(adapter: Sequence[TokenStatistics], base: Sequence[TokenStatistics]) -> dict[str, float]:
    """Each attack's score of one patient; a higher one says that it was trained on.

    `loss` is the mean log-probability, `reference_loss` what the adapter added to the base's (Carlini et al. 2022).
    `min_k_plus_plus` is the mean of the lowest fifth of the normalized ones (Zhang et al. 2024).
    """
    own = np.concatenate([row.log_probabilities for row in adapter])
    before = np.concatenate([row.log_probabilities for row in base])
    means = np.concatenate([row.means for row in adapter])
    deviations = np.concatenate([row.deviations for row in adapter])
    normalized = np.sort((own - means) / np.maximum(deviations, 1e-6))
    return {
        "first_choices": float(np.concatenate([row.is_first for row in adapter]).mean()),
        "loss": float(own.mean()),
        "min_k_plus_plus": float(normalized[: max(1, round(LOWEST_SHARE * len(normalized)))].mean()),
        "reference_loss": float((own - before).mean()),
    }


def written_rows(patients: Sequence[PatientRows], adapter: Passes, base: Passes) -> list[Written]:
    """The rows of the patients with the tokens that adapter and base write."""
    return [
        Written(
            uid=row.uid,
            group=patient.uid,
            tokens=row.tokens,
            offsets=row.targets,
            known=row.known,
            by_adapter=_first(of_adapter),
            by_base=_first(of_base),
            lead=row.lead,
        )
        for patient, adapter_rows, base_rows in zip(patients, adapter.by_row, base.by_row, strict=True)
        for row, of_adapter, of_base in zip(patient.rows, adapter_rows, base_rows, strict=True)
    ]


def _first(statistics: TokenStatistics) -> NDArray[np.bool_]:
    return np.asarray(statistics.is_first, dtype=bool)
