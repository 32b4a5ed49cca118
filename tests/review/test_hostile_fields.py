"""Hostile text of ten megabytes in every field that the pages read: nothing of it is markup, and pages stay small."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lora_med.review.blind.rating import AXES
from lora_med.review.blind.study import Study
from lora_med.review.web.evidence import load_evidence
from lora_med.review.web.evidence_pages import EvidencePages
from lora_med.review.web.rating_pages import RatingPages
from tests.review.small_report import make_report
from tests.review.small_store import publish_card

MARKUP = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\" onfocus=alert(1) '\u202e\u2066\x1b]0;x\x07\x00"
)
BYTES = 10_000_000
HOSTILE = MARKUP + "w" * (BYTES - len(MARKUP))
LARGEST_PAGE = 3_000_000


def is_harmless(page: str) -> bool:
    """Whether nothing of the hostile text is markup or acts on the reader, and the page is of a size to be shown."""
    dangers = ("<script>", "<img", "onerror=alert(1)>{{", '" onfocus', "\u202e", "\u2066", "\x1b", "\x00")
    return not any(each in page for each in dangers) and len(page) < LARGEST_PAGE


def fields(value: Any) -> Any:
    """The value with every text in it hostile; the names of fields stay."""
    if isinstance(value, dict):
        return {key: fields(each) for key, each in value.items()}
    if isinstance(value, list):
        return [fields(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def client_of(application: Any) -> TestClient:
    return TestClient(application, base_url="http://127.0.0.1:8080", follow_redirects=False)


@pytest.mark.slow
def test_in_a_report_its_items_and_its_prompts(tmp_path: Path) -> None:
    report, data = make_report(tmp_path, 6)
    content = json.loads((report / "report.json").read_text())
    entry = content["evaluations"][0]
    keys = ("access", "scoring", "source", "template", "items_file", "layout", "subjects")
    known = {key: entry[key] for key in keys}
    measures = [measure["name"] for measure in entry["measures"]]
    hostile = fields(entry) | known
    hostile["measures"] = [
        fields(each) | {"name": name} for each, name in zip(entry["measures"], measures, strict=True)
    ]
    hostile["notes"] = [HOSTILE]
    names = ("study", "adapter", "against", "source", "split", "template", "created")
    ratings = [{**dict.fromkeys(names, HOSTILE), "win_difference": {}, "sentences": [HOSTILE]}]
    comparisons = fields(content["comparisons"])
    whole = content | {"title": HOSTILE, "created": HOSTILE, "evaluations": [hostile], "comparisons": comparisons}
    (report / "report.json").write_text(json.dumps(whole | {"ratings": ratings}))
    lines = [json.loads(line) for line in (report / "items.jsonl").read_text().splitlines()]
    lines[0] |= {"answer": HOSTILE, "group": HOSTILE}
    lines[0]["base"] |= {"written": HOSTILE, "predicted": HOSTILE}
    lines[0]["adapters"]["notes"] |= {"written": HOSTILE, "predicted": [HOSTILE]}
    lines[1]["uid"] = HOSTILE
    (report / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = [json.loads(line) for line in data.read_text().splitlines()]
    without_nul = HOSTILE.replace("\0", "")  # which the readers refuse
    records[0] |= {"input": without_nul, "output": without_nul}
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    client = client_of(EvidencePages([load_evidence(report, [str(data)])], tmp_path / "store").application())
    for path in ("/", "/reports/0/0", "/reports/0/0/0", "/reports/0/0/1", "/reports/0/0?order=gain"):
        answer = client.get(path)
        assert answer.status_code == 200 and is_harmless(answer.text), path
        assert "&lt;script&gt;" in answer.text, path
    assert "more characters are not shown" in client.get("/reports/0/0/0").text


@pytest.mark.slow
def test_in_a_card_and_in_a_run(tmp_path: Path) -> None:
    folder = publish_card(tmp_path / "store", "notes")
    card = json.loads((folder / "card.json").read_text())
    kept = {key: card[key] for key in ("format", "name", "files", "method")}
    hostile = fields(card) | kept
    hostile["base"] = fields(card["base"]) | {"fingerprint": card["base"]["fingerprint"], "quantization": "none"}
    hostile["data"] = card["data"] | {"source": HOSTILE, "license": HOSTILE}
    hostile["settings"] = {"train": {"note": HOSTILE, MARKUP: HOSTILE}}
    hostile["scores"] = {HOSTILE: HOSTILE}
    (folder / "card.json").write_text(json.dumps(hostile))
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    lines = [{"step": 1, "loss": 2.0, HOSTILE + "loss": 1.0}, {"step": 2, "loss": HOSTILE}, {"step": 3, "loss": 1.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "run.json").write_text(json.dumps({"data": {"access": HOSTILE}}))
    client = client_of(EvidencePages([], tmp_path / "store", runs=tmp_path / "runs").application())
    for path in ("/adapters", "/adapters/notes", "/runs", "/runs/first"):
        answer = client.get(path)
        assert answer.status_code == 200 and is_harmless(answer.text), path
    assert "&lt;script&gt;" in client.get("/adapters/notes").text and "<svg" in client.get("/runs/first").text


@pytest.mark.slow
def test_in_a_rating(study: Study) -> None:
    client = client_of(RatingPages(study).application())
    form = {"choice": "a", **dict.fromkeys(AXES, "equal")}
    address = f"/rate/{study.tokens['R1']}/1"
    for name in ("comment", "choice", "accuracy", "mark-a-0", MARKUP):
        assert client.post(address, data=form | {name: HOSTILE}).status_code == 413
        answer = client.post(address, data=form | {name: HOSTILE[:2_000_000]})
        assert answer.status_code in (422, 303) and is_harmless(answer.text), name
    assert client.post(address, data=form | {"comment": HOSTILE[:9_000]}).status_code == 303
    page = client.get(address).text
    assert is_harmless(page) and "<script>alert(1)</script>" in unescape(page)


def test_an_address_is_only_text_too(tmp_path: Path) -> None:
    client = client_of(EvidencePages([], tmp_path / "store", runs=tmp_path / "runs").application())
    for path in ("/adapters/" + MARKUP[:60], "/runs/..%2f..%2fetc", "/runs/%00", "/adapters/%E2%80%AE"):
        answer = client.get(path)
        assert answer.status_code == 404 and is_harmless(answer.text), path
