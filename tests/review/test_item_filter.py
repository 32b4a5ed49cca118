"""Items by the subject that the source names, and by the confidence that the report holds."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lora_med.review.item_filter import ItemFilter
from lora_med.review.web.evidence import EvaluationEvidence, load_evidence
from lora_med.review.web.evidence_pages import EvidencePages
from tests.review.small_report import make_report

SECTIONS = ("ASSESSMENT", "PLAN", "")


def with_facts(folder: Path, threshold: float | None = None, temperature: float = 1.0) -> tuple[Path, Path]:
    """A report of 12 items whose base is 0.9 sure and whose adapter is 0.1 to 1.2 odds sure; records with a section."""
    report, data = make_report(folder, 12)
    lines = [json.loads(line) for line in (report / "items.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["base"]["log_probabilities"] = [math.log(0.1), math.log(0.9)]
        share = 0.5 + 0.04 * number
        line["adapters"]["notes"]["log_probabilities"] = [math.log(share), math.log(1 - share)]
    (report / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = json.loads((report / "report.json").read_text())
    if threshold is not None:
        fitted = {"items": 9, "temperature": temperature, "risk": 0.1, "threshold": threshold}
        content["evaluations"][0]["subjects"][1]["confidence"] = {"plain": {}, "fitted": fitted}
    (report / "report.json").write_text(json.dumps(content))
    records = [json.loads(line) for line in data.read_text().splitlines()]
    named = [record | {"section": SECTIONS[number % 3]} for number, record in enumerate(records)]
    data.write_text("".join(json.dumps(record) + "\n" for record in named))
    return report, data


def evidence_of(folder: Path, **options: Any) -> EvaluationEvidence:
    report, data = with_facts(folder, **options)
    return load_evidence(report, [str(data)]).evaluations[0]


def test_items_of_one_subject_are_those_whose_record_names_it(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path)
    assert evidence.subjects == ("ASSESSMENT", "PLAN")
    assert evidence.selection(ItemFilter("notes", subject="PLAN")) == [1, 4, 7, 10]
    assert evidence.selection(ItemFilter("notes", subject="none of them")) == list(range(12))


def test_confidence_is_the_probability_of_the_chosen_option(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path)
    # The adapter's shares are 0.50, 0.54, ... 0.94: eight of them are under 0.8.
    assert evidence.confidences["notes"].values == pytest.approx([0.5 + 0.04 * number for number in range(12)])
    assert evidence.selection(ItemFilter("notes", confidence="middle")) == list(range(8))
    assert evidence.selection(ItemFilter("notes", confidence="high")) == [8, 9, 10, 11]
    assert evidence.selection(ItemFilter("notes", confidence="low")) == []
    assert evidence.selection(ItemFilter("base", confidence="high")) == list(range(12))
    assert evidence.selection(ItemFilter("notes", order="unsure")) == list(range(12))
    assert evidence.selection(ItemFilter("notes", order="sure")) == list(range(11, -1, -1))


def test_the_temperature_and_the_threshold_of_the_report_are_used(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, threshold=0.7, temperature=2.0)
    # At temperature 2 the odds 0.94 : 0.06 become their square root: 3.958 to 1, which is 0.798.
    assert evidence.confidences["notes"].values[11] == pytest.approx(0.798, abs=0.0005)
    # 0.7 is odds of 2.333; squared 5.444, a share of 0.8448 before: items 0 to 8 (0.82) are under it.
    assert evidence.selection(ItemFilter("notes", confidence="refer")) == list(range(9))
    assert evidence.selection(ItemFilter("base", confidence="refer")) == list(range(12))  # nothing was fitted for it


def test_the_page_offers_the_filters_and_shows_what_it_filtered_by(tmp_path: Path) -> None:
    report, data = with_facts(tmp_path, threshold=0.7)
    pages = EvidencePages([load_evidence(report, [str(data)])], tmp_path / "store")
    client = TestClient(pages.application(), base_url="http://127.0.0.1:8080")
    page = client.get("/reports/0/0?subject=PLAN&confidence=high&order=sure").text
    assert re.findall(r'href="/reports/0/0/(\d+)"', page) == ["10"] and ">90%<" in page
    assert "<option selected>PLAN</option>" in page and "below the threshold of abstention" in page
    assert "confidence</dt><dd>90%" in client.get("/reports/0/0/10").text
    assert "Subject: PLAN" in client.get("/reports/0/0/10").text


def test_a_report_without_them_offers_none(small_report: tuple[Path, Path], tmp_path: Path) -> None:
    evidence = load_evidence(small_report[0], [str(small_report[1])])
    pages = EvidencePages([evidence], tmp_path)
    page = TestClient(pages.application(), base_url="http://127.0.0.1:8080").get("/reports/0/0?order=sure").text
    assert "Confidence" not in page and "Subject" not in page
    assert evidence.evaluations[0].selection(ItemFilter("notes", order="sure", confidence="high")) == []
