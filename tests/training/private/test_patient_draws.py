"""Who takes part in a step: each patient by a coin of its own, with all rows, in passes that keep patients separate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lora_med.training.private.noise_key import NoiseKey
from lora_med.training.private.patient_draws import DrawCollator, PatientDraws
from lora_med.training.rows.batches import Collator
from lora_med.training.step.loss import labeled_positions

PATIENTS = [0, 1, 0, 2, 2, 2, 3]
KEY = NoiseKey(b"k" * 32)


def row(number: int, length: int, untrained: int = 1) -> dict[str, Any]:
    ids = list(range(10 * number, 10 * number + length))
    return {
        "number": number,
        "input_ids": ids,
        "labels": [-100] * untrained + ids[untrained:],
        "seq_lengths": [length],
    }


ROWS = [row(0, 4), row(1, 3), row(2, 6, 3), row(3, 2), row(4, 5), row(5, 4), row(6, 7)]


def test_each_patient_takes_part_independently_with_the_rate() -> None:
    draws = PatientDraws(list(range(50)), rate=0.2, steps=1, key=KEY)
    steps = 2000
    counts = torch.zeros(50)
    sizes = []
    for step in range(steps):
        drawn = draws.draw(step)
        counts[drawn] += 1
        sizes.append(len(drawn))
    deviation = (steps * 0.2 * 0.8) ** 0.5
    assert float((counts - steps * 0.2).abs().max()) < 4 * deviation
    variance = torch.tensor(sizes, dtype=torch.float64).var()
    assert abs(float(variance) - 50 * 0.2 * 0.8) < 4 * 8 * (2 / steps) ** 0.5  # of a fixed batch it would be 0


def test_a_drawn_patient_comes_with_all_rows_and_a_step_may_be_empty() -> None:
    everyone = PatientDraws(PATIENTS, rate=1.0, steps=2, key=KEY)
    assert [sorted(rows) for rows in everyone] == 2 * [list(range(7))]
    assert list(PatientDraws(PATIENTS, rate=0.0, steps=2, key=KEY)) == [[], []]
    for rows in PatientDraws(PATIENTS, rate=0.5, steps=30, key=KEY):
        drawn = {PATIENTS[number] for number in rows}
        assert sorted(rows) == [number for number, patient in enumerate(PATIENTS) if patient in drawn]


def test_the_draws_of_an_epoch_are_those_of_its_steps() -> None:
    draws = PatientDraws(PATIENTS, rate=0.5, steps=10, key=KEY)
    first = list(draws)
    draws.set_epoch(1)
    second = list(draws)
    whole = list(PatientDraws(PATIENTS, rate=0.5, steps=20, key=KEY))
    assert len(draws) == 10 and first + second == whole and first != second


@pytest.mark.parametrize("flat", [True, False])
def test_tokens_are_weighted_to_the_mean_over_rows_of_the_mean_over_tokens(flat: bool) -> None:
    collate = DrawCollator(PATIENTS, Collator(0, flat=flat, unmasked=False), labeled_positions, rows=10)
    ((only,),) = collate([ROWS[number] for number in (0, 2, 1, 3, 4, 5)])["groups"]
    by_patient: dict[int, list[float]] = {}
    tokens = only.inputs["input_ids"].flatten()
    for position, weight in zip(only.positions.tolist(), only.weights.tolist(), strict=True):
        by_patient.setdefault(PATIENTS[int(tokens[position]) // 10], []).append(weight)
        start, end = only.spans[[0, 1, 2].index(PATIENTS[int(tokens[position]) // 10])]
        assert start <= position < end
    assert by_patient[0] == pytest.approx([1 / 3 / 2] * 3 + [1 / 3 / 2] * 3)
    assert by_patient[1] == pytest.approx([1 / 2] * 2)
    assert by_patient[2] == pytest.approx([1 / 1 / 3] + [1 / 4 / 3] * 4 + [1 / 3 / 3] * 3)
    assert [sum(weights) for weights in by_patient.values()] == pytest.approx([1.0] * 3)


def test_patients_share_a_pass_while_their_rows_fit_and_a_large_one_has_several() -> None:
    def sizes(rows: int) -> list[list[int]]:
        collate = DrawCollator(PATIENTS, Collator(0, flat=False, unmasked=False), labeled_positions, rows=rows)
        return [[len(each.spans) for each in passes] for passes in collate(ROWS)["groups"]]

    assert sizes(10) == [[4]]
    assert sizes(3) == [[2], [1], [1]]  # patients 0 and 1 with three rows, patient 2 with three, patient 3
    assert sizes(2) == [[1], [1], [1, 1], [1]]
    assert sizes(1) == [[1, 1], [1], [1, 1, 1], [1]]


def test_the_passes_of_a_large_patient_count_as_one_row_mean() -> None:
    collate = DrawCollator(PATIENTS, Collator(0, flat=False, unmasked=False), labeled_positions, rows=2)
    (passes,) = collate([ROWS[number] for number in (3, 4, 5)])["groups"]
    assert [float(each.weights.sum()) for each in passes] == pytest.approx([2 / 3, 1 / 3])


def test_an_empty_draw_has_no_pass() -> None:
    batch = DrawCollator(PATIENTS, Collator(0, flat=True, unmasked=False), labeled_positions, rows=2)([])
    assert batch["groups"] == [] and batch["input_ids"].numel() == 0
