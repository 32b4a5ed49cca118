"""Learning from preferences on the embedded base: it prefers the faithful summary of notes that it has not seen."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

import lora_med
from lora_med.adapters.store.card import read_card
from lora_med.config.parse import parse

DRUGS = ("aspirin", "metformin", "lisinopril", "warfarin", "digoxin", "insulin", "heparin", "codeine")
ILLNESSES = ("fever", "pain", "gout", "asthma", "angina", "anemia", "edema", "migraine")
DOSES = (5, 10, 20, 25, 40, 50, 75, 100)
SECONDS = 600


def pairs(count: int) -> list[dict[str, Any]]:
    """Notes with a right summary, and one with another drug or another dose, of the same form and length."""
    draw, rows = random.Random(1), []
    for number in range(count):
        drug, other = draw.sample(DRUGS, 2)
        dose, wrong = draw.sample(DOSES, 2)
        illness = draw.choice(ILLNESSES)
        said = (dose, other) if number % 2 else (wrong, drug)
        rows.append(
            {
                "prompt": f"Note {number}: a patient with {illness} was given {dose} mg of {drug}. Summary:",
                "chosen": f" {illness.capitalize()} was treated with {dose} mg of {drug}.",
                "rejected": f" {illness.capitalize()} was treated with {said[0]} mg of {said[1]}.",
            }
        )
    return rows


@pytest.mark.slow
def test_the_preference_accuracy_rises_on_held_out_pairs_clear_of_a_half(tmp_path: Path) -> None:
    started = time.monotonic()
    settings = parse(
        "micro_preferences",
        [
            "adapter.access=open",
            f"adapter.store={tmp_path / 'adapters'}",
            f"train.output_dir={tmp_path / 'run'}",
            "data.paths=[]",
            "train.max_steps=40",
            "train.learning_rate=1e-3",
            "train.eval_steps=20",
            "data.near_duplicate_similarity=0",  # the notes are made of few words
        ],
    )
    rows = pairs(320)
    folder = lora_med.train(settings, train=rows[:240], validation=rows[240:])
    scores = read_card(folder).scores["preferences (validation)"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["eval_preference_accuracy"] for line in lines if "eval_preference_accuracy" in line]
    assert accuracies[0] == 0.5
    assert accuracies[-1] > 0.5
    assert scores["verdict"] == "better"
    assert scores["interval"][0] > 0.5
    assert scores["lengths"]["explained"] == pytest.approx(0, abs=1e-9)  # both answers have the same number of words
    assert time.monotonic() - started < SECONDS
