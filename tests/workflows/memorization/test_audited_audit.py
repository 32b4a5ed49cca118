"""The audit is audited, on micro: what it finds where there is nothing, and where there is something to find."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lora_med
from lora_med.adapters.runtime.attach import attach
from lora_med.audit.memorization.canaries import Shape, draw_canaries, toss_again
from lora_med.audit.memorization.invented_notes import invent_note
from lora_med.audit.memorization.membership import read_membership
from lora_med.cli.main import run
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.data.record import Passage
from lora_med.data.splitting.splits import split_of_group
from lora_med.models.base import load_base
from lora_med.workflows.memorization.audit_memorization import canary_items, canary_rows
from lora_med.workflows.memorization.scored_rows import run_passes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
NUMBER = "4839201758362914075518263749501928374650"  # 40 digits, in one note of one patient
PLANTED = "patient-7"
CORE_SECONDS = 2 * 600  # ten minutes on two cores


def settings(folder: Path, name: str, *extra: str) -> Settings:
    return parse(
        None,
        [
            "model.base=micro",
            "model.load_in_4bit=false",
            "model.dtype=float32",
            "data.source=custom",
            f"data.paths=[{folder / 'notes.jsonl'}]",
            "data.columns={text: note, group: patient}",
            "data.near_duplicate_similarity=0",
            "data.validation_share=0.1",
            "data.test_share=0.3",
            "adapter.access=open",
            f"adapter.name={name}",
            f"adapter.store={folder / 'adapters'}",
            "adapter.publish_worse=true",
            f"train.output_dir={folder / name}",
            "train.learning_rate=2e-3",
            "train.num_train_epochs=10",
            "train.eval_steps=1000000",  # no validation chooses an earlier adapter: all passes count
            "lora.lora_dropout=0",
            *extra,
        ],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Invented notes of 80 patients, one with a number, and an adapter that was trained on them and on no canary."""
    home = tmp_path_factory.mktemp("audited")
    rng = random.Random(11)
    with (home / "notes.jsonl").open("w") as file:
        for number in range(80):
            text = invent_note(rng).body
            if f"patient-{number}" == PLANTED:
                text = f"The reference of the insurance is {NUMBER} and was checked twice."
            file.write(json.dumps({"patient": f"patient-{number}", "note": text}) + "\n")
    assert split_of_group(PLANTED, 42, 0.1, 0.3) == "train"
    # After 10 passes micro remembers most notes, and not yet 40 digits in a row.
    lora_med.train(settings(home, "plain", "train.per_device_train_batch_size=2", "train.num_train_epochs=20"))
    yield home


def audit(home: Path, name: str, *words: str) -> dict[str, Any]:
    places = ["--store", str(home / "adapters"), "--out", str(home / "audit"), "--data", str(home / "notes.jsonl")]
    assert run(["audit", "memorization", name, *places, *words]) == 0
    return json.loads((home / "audit" / name / "report.json").read_text())


def test_without_canaries_in_training_95_of_100_sealed_lists_prove_nothing(folder: Path) -> None:
    rng = random.Random(12)
    canaries = draw_canaries([invent_note(rng) for _ in range(600)], (1, 4, 16), seed=0)
    base = load_base("micro", quantization="none", dtype="float32")
    rows = canary_rows(canaries, Shape(Passage, "custom", "text"), base, settings(folder, "plain"))
    before = run_passes(base.model, rows)
    after = run_passes(attach(base, "plain", folder / "adapters"), rows)
    bounds = []
    for seed in range(100):
        drawn = toss_again(canaries, seed=seed)
        bounds.append(read_membership(canary_items(drawn, rows, after, before), seed=seed).tiers[-1].epsilon)
    print("bounds over 0:", [round(bound, 2) for bound in bounds if bound])
    assert sum(bound == 0 for bound in bounds) >= 95


def test_a_planted_number_of_40_digits_is_extracted(folder: Path) -> None:
    report = audit(folder, "plain", "--no-twin")
    print(json.dumps(report["patients"]["extraction"], indent=1))
    assert PLANTED in {each["group"] for each in report["patients"]["extraction"]["found"]}
    assert NUMBER not in json.dumps(report)
    assert report["bound"]["exceeded"]
    assert run(["export", "vllm", "plain", "--store", str(folder / "adapters"), "--out", str(folder / "vllm")]) == 77


def test_16_repeats_and_10_epochs_are_found(folder: Path) -> None:
    lora_med.train(settings(folder, "canaried", "train.packing=true", "train.max_length=512"))
    begun = time.process_time()
    words = ("--canaries", "1240", "--repeats", "16," + ",".join(["1"] * 15))
    report = audit(folder, "canaried", *words)["canaries"]["membership"]
    assert time.process_time() - begun < CORE_SECONDS
    print(json.dumps(report["tiers"], indent=1), report["blind_auc"])
    assert report["valid"] and report["epsilon"] >= 3
    strongest = next(each for each in report["attacks"] if (each["attack"], each["repeats"]) == ("reference_loss", 16))
    assert strongest["tpr_at"]["1%"]["tpr"]["value"] >= 0.5
