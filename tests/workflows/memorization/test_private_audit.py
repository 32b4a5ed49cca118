"""A model that was trained with privacy never audits above its epsilon, on micro."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import lora_med
from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.store.card import read_card
from lora_med.audit.memorization.canaries import Shape, draw_canaries, training_records
from lora_med.audit.memorization.invented_notes import invent_note
from lora_med.audit.memorization.membership import read_membership
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.data.record import Passage
from lora_med.models.base import load_base
from lora_med.workflows.memorization.audit_memorization import canary_items, canary_rows
from lora_med.workflows.memorization.scored_rows import run_passes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
EPSILON, DELTA, CANARIES = 4.0, 1e-4, 1200  # 300 outsiders are read, which could prove more than epsilon 4
SHAPE = Shape(Passage, "custom", "text")


def settings(folder: Path, name: str) -> Settings:
    return parse(
        None,
        [
            "model.base=micro",
            "model.load_in_4bit=false",
            "model.dtype=float32",
            "data.source=custom",
            "data.near_duplicate_similarity=0",
            "data.validation_share=0",
            "data.test_share=0",
            "adapter.access=open",
            f"adapter.name={name}",
            f"adapter.store={folder / 'adapters'}",
            f"train.output_dir={folder / name}",
            "train.learning_rate=2e-3",
            "train.num_train_epochs=10",
            "train.per_device_train_batch_size=16",
            "train.gradient_accumulation_steps=2",
            f"train.privacy.epsilon={EPSILON}",
            f"train.privacy.delta={DELTA}",
            "lora.lora_dropout=0",
        ],
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_trained_at_epsilon_4_never_audits_above_4(tmp_path: Path, seed: int) -> None:
    pytest.importorskip("opacus")
    rng = random.Random(100 + seed)
    canaries = draw_canaries([invent_note(rng) for _ in range(CANARIES)], (1,), seed=seed)
    own = settings(tmp_path, "private")
    base = load_base("micro", quantization="none", dtype="float32")
    rows = canary_rows(canaries, SHAPE, base, own)
    before = run_passes(base.model, rows)
    outsider = next(canary for canary in canaries if not canary.is_member)
    adapter = lora_med.train(own, train=training_records(canaries, SHAPE), validation=[SHAPE.record(outsider)])
    spent = read_card(adapter).privacy
    assert spent["patients"] == sum(canary.is_member for canary in canaries) and spent["epsilon"] <= EPSILON
    after = run_passes(attach(base, "private", tmp_path / "adapters"), rows)
    reading = read_membership(canary_items(canaries, rows, after, before), seed=seed, delta=DELTA)
    strongest = reading.tiers[-1]
    area = next(each.area for each in reading.attacks if each.attack == "reference_loss")
    print(f"spent {spent['epsilon']:.2f}, proved {strongest.epsilon:.2f} of at most {strongest.ceiling:.2f}", area)
    assert strongest.ceiling > EPSILON
    assert all(tier.epsilon <= EPSILON for tier in reading.tiers)
