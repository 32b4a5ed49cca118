"""`lora-med audit memorization` on a tiny base: the twin, sealed list, report, card, and what is refused."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

import lora_med
from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.store import WEIGHTS
from lora_med.audit.memorization.canaries import LIST
from lora_med.cli.main import run
from lora_med.config.parse import parse
from lora_med.files import sha256_file
from tests.tiny import make_tiny

PATIENTS = 90
WORDS = ("fever", "cough", "rash", "pain", "nausea", "edema", "chills", "vertigo", "itching", "fatigue")


def lines() -> str:
    rng = random.Random(3)
    rows = (
        {
            "patient": f"mrn-{number}",
            "prompt": f"Complaint of patient {number}:",
            "completion": f" {' and '.join(rng.sample(WORDS, 3))} for {rng.randrange(2, 90)} days.",
        }
        for number in range(PATIENTS)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base, rows of patients, and an adapter that was trained on them."""
    home = tmp_path_factory.mktemp("audit")
    base = make_tiny("llama", home / "base", context=1024)
    (home / "rows.jsonl").write_text(lines())
    options = [
        f"model.base={base}",
        "model.load_in_4bit=false",
        "model.dtype=float32",
        "data.source=custom",
        f"data.paths=[{home / 'rows.jsonl'}]",
        "data.columns={group: patient}",
        "data.validation_share=0.3",
        "data.test_share=0.2",
        "data.near_duplicate_similarity=0",
        "adapter.access=credentialed",
        f"adapter.store={home / 'adapters'}",
        "adapter.name=mine",
        "adapter.publish_worse=true",
        f"train.output_dir={home / 'run'}",
        "train.max_length=640",
        "train.max_steps=3",
        "train.per_device_train_batch_size=4",
        "lora.r=4",
    ]
    lora_med.train(parse(None, options))
    return home


def audit(folder: Path, *words: str, out: str = "audit") -> int:
    places = ["--store", str(folder / "adapters"), "--out", str(folder / out), "--base", str(folder / "base")]
    return run(["audit", "memorization", "mine", *places, *words])


@pytest.fixture(scope="module")
def audited(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The adapter's folder with the report of one audit, and the report."""
    assert audit(folder, "--data", str(folder / "rows.jsonl"), "--canaries", "120", "--repeats", "1,3") == 0
    out = folder / "audit" / "mine"
    return out, json.loads((out / "report.json").read_text())


def test_the_sealed_list_is_the_one_that_the_report_and_the_run_name(audited: tuple[Path, dict[str, Any]]) -> None:
    out, report = audited
    digest = hashlib.sha256((out / LIST).read_bytes()).hexdigest()
    assert report["canaries"]["list_sha256"] == digest
    (twin,) = out.glob("twin-notes-120-1_3-42")
    recorded = json.loads((twin / "run.json").read_text())
    assert recorded["canaries"]["sha256"] == digest
    members = [json.loads(line) for line in (out / LIST).read_text().splitlines()]
    assert report["canaries"]["members"] == sum(line["is_member"] for line in members)
    # Training rows of the twin: those of the run, and each member as often as it repeats.
    repeats = sum(line["repeats"] for line in members if line["is_member"])
    own = read_card(out.parents[1] / "adapters" / "mine").data.counts["train"]
    assert recorded["lengths"]["training"]["rows"] == own + repeats


def test_the_released_adapter_is_untouched_and_its_card_has_the_figures(
    folder: Path, audited: tuple[Path, dict[str, Any]]
) -> None:
    card = read_card(folder / "adapters" / "mine")
    assert sha256_file(folder / "adapters" / "mine" / WEIGHTS) == card.files[WEIGHTS]
    entry, report = card.memorization, audited[1]
    assert entry["weights"] == card.files[WEIGHTS] == report["weights"]
    assert entry["canaries"]["list_sha256"] == report["canaries"]["list_sha256"]
    assert entry["canaries"]["ceiling"] == report["canaries"]["membership"]["ceiling"]
    assert set(entry["canaries"]["tiers"] or {}) in ({"text", "answers", "log_probabilities", "weights"}, set())
    assert entry["bound"] == report["bound"] and entry["accepted"] == []
    assert run(["adapters", "verify", "mine", "--store", str(folder / "adapters")]) == 0


def test_no_text_no_patient_and_no_uid_is_in_any_file_of_the_audit(audited: tuple[Path, dict[str, Any]]) -> None:
    out, report = audited
    assert report["access"] == "credentialed"
    for name in ("report.json", "report.html", "report.md"):
        content = (out / name).read_text()
        assert "mrn-" not in content and "vertigo" not in content and "Complaint" not in content
        assert (out / name).stat().st_mode & 0o077 == 0
    card = (out.parents[1] / "adapters" / "mine" / "card.json").read_text()
    assert "mrn-" not in card


def test_patients_in_training_are_read_against_those_held_out(
    folder: Path, audited: tuple[Path, dict[str, Any]]
) -> None:
    report, counts = audited[1]["patients"], read_card(folder / "adapters" / "mine").data.counts
    assert report["in_training"] == counts["train"]
    assert report["in_training"] + report["held_out"] == PATIENTS
    membership = report["membership"]
    assert membership["members"] == report["in_training"]
    assert {each["attack"] for each in membership["attacks"]} == {
        "blind",
        "first_choices",
        "loss",
        "min_k_plus_plus",
        "reference_loss",
    }


def test_a_second_audit_resumes_the_twin_and_finds_the_same(folder: Path, audited: tuple[Path, dict[str, Any]]) -> None:
    before = audited[1]
    assert audit(folder, "--data", str(folder / "rows.jsonl"), "--canaries", "120", "--repeats", "1,3") == 0
    after = json.loads((audited[0] / "report.json").read_text())
    for content in (before, after):
        content.pop("seconds"), content.pop("created")
    assert after == before


def test_without_a_twin_the_patients_alone_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(folder, "--data", str(folder / "rows.jsonl"), "--no-twin", "--json", out="alone") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["canaries"] is None
    assert report["patients"]["in_training"] > 20
    assert not list((folder / "alone" / "mine").glob("twin-*"))


def test_other_files_than_those_of_the_training_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "rows.jsonl"
    other.write_text(lines().replace("fever", "fewer"))
    assert audit(folder, "--data", str(other), "--no-twin", out="other") == 76
    assert "not the files that 'mine' learned from" in capsys.readouterr().err


def test_files_that_are_not_here_are_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert audit(folder, "--no-twin", out="asked") == 66
    assert "--data PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--canaries", "20"), "--canaries is 20"),
        (("--repeats", "1,x"), "--repeats is '1,x'"),
        (("--repeats", "4,0"), "--repeats is 4,0"),
        (("--delta", "1"), "--delta is 1.0"),
        (("--most-epsilon", "-1"), "--most-epsilon is -1.0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    folder: Path, words: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(folder, *words, out="never") == 2
    assert named in capsys.readouterr().err
    assert not (folder / "never").exists()


def test_rows_too_long_for_the_run_are_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--data", str(folder / "rows.jsonl"), "--canaries", "100", "train.max_length=120")
    assert audit(folder, *words, out="short") == 2
    message = capsys.readouterr().err
    assert "train.max_length" in message and "120 tokens" in message
