"""The pages of the store, of runs while they grow, and of studies."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lora_med.errors import IntegrityError
from lora_med.review.blind.rating import AXES, Rating
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.study import Study
from lora_med.review.verdict.study_result import unseal, write_verdict
from lora_med.review.web.evidence import load_evidence
from lora_med.review.web.evidence_pages import EvidencePages
from lora_med.review.web.study_evidence import load_study
from tests.review.small_store import publish_card


def client_of(small_report: tuple[Path, Path], folder: Path, study: Study | None = None) -> TestClient:
    studies = [] if study is None else [load_study(study.folder)]
    evidence = [load_evidence(small_report[0], [])]
    pages = EvidencePages(evidence, folder / "adapters", studies=studies, runs=folder / "runs")
    return TestClient(pages.application(), base_url="http://127.0.0.1:8080")


def test_an_empty_store_and_no_runs_say_so(small_report: tuple[Path, Path], tmp_path: Path) -> None:
    client = client_of(small_report, tmp_path)
    assert "holds no adapter" in client.get("/adapters").text
    assert "holds a metrics.jsonl" in client.get("/runs").text


def test_adapters_are_listed_and_two_settings_compared(small_report: tuple[Path, Path], tmp_path: Path) -> None:
    store = tmp_path / "adapters"
    publish_card(store, "first", 0.001)
    publish_card(store, "second", 0.002, "credentialed")
    (store / "broken").mkdir()
    (store / "broken" / "card.json").write_text("{")
    client = client_of(small_report, tmp_path)
    page = client.get("/adapters").text
    assert 'href="/adapters/first"' in page and "E076-integrity" in page
    assert "Access class: <strong>credentialed</strong>" in page
    page = client.get("/adapters/first").text
    assert "eval_loss" in page and "validation.eval_nll" in page and "2.25" in page
    assert "train.seed" in page and "<b>" not in page and "a" * 64 in page
    page = client.get("/adapters/first?against=second").text
    assert "train.learning_rate" in page and "0.001" in page and "0.002" in page and "train.seed" not in page


def test_the_settings_of_two_runs_are_compared(small_report: tuple[Path, Path], tmp_path: Path) -> None:
    for name, rate, access in (("one", 0.001, "open"), ("two", 0.002, "registered")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
        settings = {"train": {"learning_rate": rate, "seed": 42}}
        (run / "run.json").write_text(json.dumps({"data": {"access": access}, "settings": settings}))
    client = client_of(small_report, tmp_path)
    page = client.get("/runs/one").text
    assert "train.seed" in page and "0.001" in page and "0.002" not in page and "<strong>open</strong>" in page
    page = client.get("/runs/one?against=two").text
    assert "0.001" in page and "0.002" in page and "train.seed" not in page and "<strong>registered</strong>" in page
    assert "train.seed" in client.get("/runs/one?against=none").text


def test_a_run_is_read_while_it_grows(small_report: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "runs" / "notes" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "lo')
    client = client_of(small_report, tmp_path)
    assert ">2.5<" in client.get("/runs").text and ">2<" not in client.get("/runs/notes").text
    with open(path, "a") as handle:
        handle.write('ss": 1.25, "eval_nll": 3.75}\n')
    page = client.get("/runs/notes").text
    assert ">1.25<" in page and ">3.75<" in page and "eval_nll" in page
    assert client.get("/runs/other").status_code == 404
    assert client.get("/runs/%2e%2e").status_code == 404


def test_a_sealed_study_shows_only_its_progress(small_report: tuple[Path, Path], tmp_path: Path, study: Study) -> None:
    client = client_of(small_report, tmp_path, study)
    each = study.assignments[0]
    RatingLog(study).store(Rating(each.id, each.rater, "a", dict.fromkeys(AXES, "a")))
    page = client.get("/").text
    assert f"No verdict yet: 1 of {len(study.assignments)} ratings are stored." in page
    unseal(study, "the chair, for a test", incomplete=True)
    sentences = write_verdict(study).sentences
    page = html.unescape(client.get("/").text)
    assert all(sentence in page for sentence in sentences)


def test_a_damaged_verdict_is_named(study: Study) -> None:
    (study.folder / "verdict.json").write_text("{}")
    with pytest.raises(IntegrityError, match="not a verdict"):
        load_study(study.folder)
