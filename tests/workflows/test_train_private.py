"""lora_med.train with train.privacy: patients from the group column, the card, run.json, and nothing of validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lora_med
from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.verify import verify
from lora_med.cli.main import run
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.training.private.noise_key import FILE
from lora_med.workflows.run_identity import run_identity
from tests.tiny import make_tiny
from tests.training.support import make_base

pytest.importorskip("opacus")
ROWS = [
    {"patient": f"mrn-{n // 2}", "prompt": f"What treats illness {n}?", "completion": f" Remedy {n} does."}
    for n in range(40)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"))


def words(base: Path, folder: Path, *extra: str) -> list[str]:
    return [
        f"model.base={base}",
        "model.load_in_4bit=false",
        "model.dtype=float32",
        "data.source=custom",
        "data.columns={group: patient}",
        "data.near_duplicate_similarity=0",
        "data.validation_share=0.2",
        "adapter.access=open",
        f"train.output_dir={folder / 'run'}",
        "train.max_steps=3",
        "train.per_device_train_batch_size=4",
        "train.privacy.epsilon=1",
        "train.privacy.delta=1e-2",
        "lora.r=4",
        "adapter.name=mine",
        f"adapter.store={folder / 'adapters'}",
        *extra,
    ]


def settings(base: Path, folder: Path, *extra: str) -> Settings:
    return parse(None, words(base, folder, *extra))


def test_the_card_and_run_json_say_what_was_spent_on_whom(base: Path, tmp_path: Path) -> None:
    adapter = lora_med.train(settings(base, tmp_path), train=ROWS)
    card = read_card(adapter)
    spent = card.privacy
    assert (spent["unit"], spent["steps"], spent["delta"], spent["patients_a_step"]) == ("patient", 3, 1e-2, 4)
    assert spent["patients"] == card.data.counts["train"] / 2
    assert 0.99 < spent["epsilon"] <= 1
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert recorded["privacy"] == spent
    assert recorded["lengths"]["training"]["patients"] == spent["patients"]
    assert "Differential privacy" in (adapter / "README.md").read_text()
    assert card.scores == {} and recorded["scores"] == {}
    assert card.data.counts["validation"] > 0
    assert "eval_loss" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert not list(tmp_path.rglob(FILE))
    verify(adapter)


def test_files_give_the_patients_that_rows_in_memory_give(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    from_file = read_card(lora_med.train(settings(base, tmp_path / "a", f"data.paths=[{file}]")))
    again = read_card(lora_med.train(settings(base, tmp_path / "b"), train=ROWS))
    assert from_file.privacy == again.privacy


def test_tags_are_trained_with_privacy_and_not_scored_on_validation(base: Path, tmp_path: Path) -> None:
    lines = []
    for number in range(24):
        text = f"w{number % 7} has GOUT or x{number % 5}"
        spans = [{"start": text.index("GOUT"), "end": text.index("GOUT") + 4, "type": "Disease"}]
        lines.append({"uid": str(number), "group": str(number // 2), "text": text, "spans": spans})
    adapter = lora_med.train(
        settings(base, tmp_path, "lora.task_type=TOKEN_CLS", "data.columns={}"), train=lines
    )  # fmt: skip
    card = read_card(adapter)
    assert card.labels and card.privacy["patients"] == card.data.counts["train"] / 2
    assert card.scores == {}


def test_a_plan_says_the_noise_the_patients_and_the_time(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    plan = ["plan", *words(base, tmp_path, f"data.paths=[{file}]", "train.max_steps=-1"), "--no-time"]
    assert run([*plan, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    patients = report["privacy"]["patients"]
    assert report["rows"] == 2 * patients
    assert report["steps_an_epoch"] == -(-patients // 4) and report["privacy"]["steps"] == report["steps"]
    assert 0.99 < report["privacy"]["epsilon"] <= 1
    assert run(plan) == 0
    assert f"privacy      noise multiplier {report['privacy']['noise_multiplier']:.3f}" in capsys.readouterr().out
    assert run([*plan, "--processes", "2"]) == 2


def test_more_patients_a_step_than_there_are_is_refused_before_training(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    asked = words(base, tmp_path, f"data.paths=[{file}]", "train.per_device_train_batch_size=64")
    assert run(["train", *asked]) == 2
    assert "a step would take 64 patients" in capsys.readouterr().err
    assert not (tmp_path / "adapters" / "mine").exists()


def test_a_run_without_privacy_has_the_identity_that_it_had() -> None:
    identity = run_identity(Settings(), make_base(), {})
    assert not [name for name in identity if "privacy" in name]
