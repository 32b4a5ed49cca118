"""What holds for every page of the review commands: the access class, the headers, no inline code, a modest size."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from lora_med.review.blind.study import Study, open_study
from lora_med.review.trained_rows import TrainedRows
from lora_med.review.web.evidence import load_evidence
from lora_med.review.web.evidence_pages import EvidencePages
from lora_med.review.web.page_guard import PageGuard
from lora_med.review.web.rating_pages import RatingPages
from lora_med.review.web.study_evidence import load_study
from tests.review.small_store import publish_card
from tests.review.test_data_pages import trained_rows

NO_PAGES = {"/static/{name}", "/favicon.ico"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRows:
    return trained_rows(tmp_path_factory.mktemp("data"), "adapter.access=open")


@pytest.fixture(scope="module")
def study(drawn_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return open_study(shutil.copytree(drawn_study, tmp_path_factory.mktemp("pages") / "study"))


@pytest.fixture(scope="module")
def evidence_app(
    small_report: tuple[Path, Path], study: Study, trained: TrainedRows, tmp_path_factory: pytest.TempPathFactory
) -> PageGuard:
    folder = tmp_path_factory.mktemp("site")
    publish_card(folder / "store", "notes")
    (folder / "runs" / "first").mkdir(parents=True)
    lines = [{"step": step, "loss": 3 / step} for step in range(1, 40)]
    (folder / "runs" / "first" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "runs" / "first" / "run.json").write_text('{"data": {"access": "open"}}')
    evidence = [load_evidence(small_report[0], [str(small_report[1])])]
    pages = EvidencePages(
        evidence, folder / "store", studies=[load_study(study.folder)], runs=folder / "runs", trained=trained
    )
    return pages.application()


def answers(application: PageGuard, values: dict[str, str]) -> dict[str, Any]:
    """The answer of every address of an application; a parameter without a value here fails."""
    client = TestClient(application, base_url="http://127.0.0.1:8080")
    found = {}
    for route in application.app.routes:  # type: ignore[attr-defined]
        assert isinstance(route, Route)
        if route.path not in NO_PAGES:
            path = re.sub(r"\{(\w+)(?::int)?\}", lambda match: values[match[1]], route.path)
            for method in (route.methods or set()) - {"HEAD"}:
                found[f"{method} {path}"] = client.request(method, path)
    found["GET /nothing"] = client.get("/nothing")
    return found


def every_answer(evidence_app: PageGuard, study: Study) -> dict[str, Any]:
    values = {"report": "0", "evaluation": "0", "item": "3", "name": "notes"}
    found = answers(evidence_app, values)
    found["GET /runs/first"] = TestClient(evidence_app, base_url="http://127.0.0.1:8080").get("/runs/first")
    return found | answers(RatingPages(study).application(), {"token": study.tokens["R1"], "position": "1"})


def test_every_page_shows_its_access_class_and_keeps_the_rules(evidence_app: PageGuard, study: Study) -> None:
    every = every_answer(evidence_app, study)
    assert len(every) >= 14
    for name, answer in every.items():
        text = answer.text
        access = re.findall(r"Access class: <strong>([^<]+)</strong>", text)
        assert access in (["open"], ["no data on this page"]), name
        assert (access == ["open"]) == (answer.status_code in (200, 422) and "/playground" not in name), name
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; "), name
        assert answer.headers["cache-control"] == "no-store", name
        assert re.search(r"<script(?! src=\"/static/)|\son\w+=|\sstyle=|<style", text) is None, name
        assert re.search(r"(?:src|href|action)=\"(?!/|#)", text) is None, name
        assert len(answer.text) < 100_000, name


def test_the_addresses_of_a_report_and_of_a_study_are_kept_apart(evidence_app: PageGuard, study: Study) -> None:
    rating = TestClient(RatingPages(study).application(), base_url="http://127.0.0.1:8080")
    for path in ("/adapters", "/reports/0/0", "/runs", "/data", "/playground"):
        assert rating.get(path).status_code == 404
    assert (
        TestClient(evidence_app, base_url="http://127.0.0.1:8080").get(f"/rate/{study.tokens['R1']}").status_code == 404
    )
