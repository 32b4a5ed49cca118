"""The verdict of a study in the report, the card and the README: once, whole, and as one more test of the report."""

from __future__ import annotations

import html
import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.published import open_files
from lora_med.errors import InputMissingError, IntegrityError
from lora_med.metrics.significance import holm
from lora_med.review.blind.rating import AXES, Rating
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.study import Study
from lora_med.review.report_folder import open_report
from lora_med.review.verdict.record_verdict import record_verdict
from lora_med.review.verdict.report_verdict import corrected, record_in_report
from lora_med.review.verdict.study_result import StudyResult, unseal, write_verdict
from lora_med.review.web.evidence import load_evidence
from lora_med.review.web.evidence_pages import EvidencePages
from lora_med.review.web.study_evidence import load_study
from tests.review.small_store import README, publish_card


@pytest.fixture
def report(small_report: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the report whose items are rated."""
    return shutil.copytree(small_report[0], tmp_path / "report")


@pytest.fixture
def result(study: Study) -> StudyResult:
    """Every rater prefers the adapter."""
    log = RatingLog(study)
    for each in study.assignments:
        log.store(Rating(each.id, each.rater, each.adapter_side, dict.fromkeys(AXES, "a")))
    unseal(study, "the chair, study complete")
    return write_verdict(study)


def content_of(report: Path) -> dict[str, Any]:
    return json.loads((report / "report.json").read_text())


def test_the_report_holds_the_verdict_as_a_further_test(
    study: Study, result: StudyResult, report: Path, tmp_path: Path
) -> None:
    publish_card(tmp_path / "store", "notes")
    before = content_of(report)["comparisons"]
    record_verdict(study, result, tmp_path / "store", report)
    content = content_of(report)
    assert [each["measure"] for each in content["comparisons"]] == [before[0]["measure"], "win_difference"]
    # 20 wins of 20: p = 2 / 2**20. Holm doubles the smaller of two p-values and leaves the larger one, or lifts it.
    p_values = [before[0]["p_value"], 2 / 2**20]
    assert [each["adjusted"] for each in content["comparisons"]] == pytest.approx(holm(p_values))
    rating = content["ratings"][0]
    assert (rating["verdict"], rating["items_won"], rating["raters"]) == ("better", 20, 3)
    assert rating["win_difference"]["value"] == 1.0 and rating["study"] == study.plan["sha256"]["sealed.json"]
    assert rating["sentences"] == list(result.sentences)
    page = html.unescape(page_of(report, tmp_path, "/"))
    assert "win_difference" in page and "sign test of a blind rating" in page
    assert all(sentence in page for sentence in result.sentences)


def test_a_study_that_is_shown_itself_is_not_shown_again_with_its_report(
    study: Study, result: StudyResult, report: Path, tmp_path: Path
) -> None:
    publish_card(tmp_path / "store", "notes")
    record_verdict(study, result, tmp_path / "store", report)
    pages = EvidencePages([load_evidence(report, [])], tmp_path / "store", studies=[load_study(study.folder)])
    page = html.unescape(TestClient(pages.application(), base_url="http://127.0.0.1:8080").get("/").text)
    assert page.count(result.sentences[0]) == 1


def page_of(report: Path, folder: Path, path: str) -> str:
    pages = EvidencePages([load_evidence(report, [])], folder / "store")
    return TestClient(pages.application(), base_url="http://127.0.0.1:8080").get(path).text


def test_the_pages_of_the_report_show_it_before_their_findings_and_stay_as_they_were(
    study: Study, result: StudyResult, report: Path, tmp_path: Path
) -> None:
    publish_card(tmp_path / "store", "notes")
    before = (report / "report.html").read_text(), (report / "report.md").read_text()
    record_verdict(study, result, tmp_path / "store", report)
    page, text = (report / "report.html").read_text(), (report / "report.md").read_text()
    section = page[page.index('<section id="blind-rating">') : page.index('<div class="lead">')]
    assert page.replace(section, "") == before[0] and text.startswith(before[1].rstrip())
    shown = html.unescape(section)
    assert "Blind rating: notes against base" in shown and all(each in shown for each in result.sentences)
    assert '<span class="chip better">better</span> notes, win_difference, custom, pair: p = ' in section
    assert "## Blind rating" in text and text.count("after Holm (sign test of a blind rating)") == 1
    record_in_report(study, replace(result, sentences=("<script>",)), open_report(report))
    page = (report / "report.html").read_text()
    assert page.count('id="blind-rating"') == 1 and "<script>" not in page and "&lt;script&gt;" in page
    assert (report / "report.md").read_text().count("## Blind rating\n") == 1


def test_the_card_and_the_readme_hold_the_verdict_and_the_files_are_still_as_published(
    study: Study, result: StudyResult, report: Path, tmp_path: Path
) -> None:
    folder = publish_card(tmp_path / "store", "notes")
    (folder / "README.md").chmod(0o640)
    path = record_verdict(study, result, tmp_path / "store", report)
    opened = open_files(folder)
    assert path == folder / "card.json" and opened.contents["README.md"].decode() != README
    entry = read_card(folder).scores["custom/test/pair/blind_rating"]
    assert entry["measures"]["win_difference"]["change"]["verdict"] == "better"
    assert (entry["n"], entry["ratings"], entry["raters"]) == (20, 22, 3)
    assert read_card(folder).scores["eval_loss"] == 1.5
    lines = (folder / "README.md").read_text().splitlines()
    assert lines.index("- **Result**: better on validation") + 1 == lines.index(
        next(line for line in lines if line.startswith("- **Blind rating**: better than base, win difference +1.00"))
    )
    assert [line for line in lines if not line.startswith("- **Blind rating**")] == README.splitlines()
    assert stat.S_IMODE((folder / "README.md").stat().st_mode) == 0o640
    assert "custom/test/pair/blind_rating" in page_of(report, tmp_path, "/adapters/notes")


def test_recording_twice_changes_nothing(study: Study, result: StudyResult, report: Path, tmp_path: Path) -> None:
    folder = publish_card(tmp_path / "store", "notes")

    def state() -> list[tuple[bytes, int]]:
        paths = [report / f"report.{kind}" for kind in ("json", "html", "md")]
        paths += [folder / "card.json", folder / "README.md"]
        return [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]

    record_verdict(study, result, tmp_path / "store", report)
    before = state()
    record_verdict(study, result, tmp_path / "store", report)
    assert state() == before
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["notes"]


def test_a_changed_readme_is_refused_and_nothing_is_written(
    study: Study, result: StudyResult, report: Path, tmp_path: Path
) -> None:
    folder = publish_card(tmp_path / "store", "notes")
    (folder / "README.md").write_text("another text")
    before = (report / "report.json").read_bytes(), (folder / "card.json").read_bytes()
    with pytest.raises(IntegrityError, match="README"):
        record_verdict(study, result, tmp_path / "store", report)
    assert ((report / "report.json").read_bytes(), (folder / "card.json").read_bytes()) == before


def test_a_report_that_is_gone_or_has_other_items_is_refused(
    study: Study, result: StudyResult, report: Path, tmp_path: Path
) -> None:
    folder = publish_card(tmp_path / "store", "notes")
    before = (folder / "card.json").read_bytes()
    with pytest.raises(InputMissingError, match=r"report\.json"):
        record_verdict(study, result, tmp_path / "store", tmp_path / "gone")
    lines = (report / "items.jsonl").read_text().splitlines(keepends=True)
    (report / "items.jsonl").write_text("".join(reversed(lines)))
    with pytest.raises(IntegrityError, match="items that were rated"):
        record_verdict(study, result, tmp_path / "store", report)
    assert (folder / "card.json").read_bytes() == before


def test_a_verdict_on_an_adapter_that_is_not_in_the_store_is_refused(
    study: Study, result: StudyResult, report: Path, tmp_path: Path
) -> None:
    before = (report / "report.json").read_bytes()
    with pytest.raises(InputMissingError, match="notes"):
        record_verdict(study, result, tmp_path, report)
    assert (report / "report.json").read_bytes() == before


def test_a_further_test_may_take_a_verdict_back() -> None:
    tests = [{"p_value": 0.04}, {"p_value": None}, {"p_value": 0.03}, {"p_value": 0.001}]
    made = corrected(tests, ["better", "worse", "worse", "better"])
    # Holm over three: 3 * 0.001, then 2 * 0.03, and 0.04 lifted to the one before it.
    assert [each["adjusted"] for each in made] == [pytest.approx(0.06), None, pytest.approx(0.06), pytest.approx(0.003)]
    assert [each["verdict"] for each in made] == ["cannot tell", "worse", "cannot tell", "better"]
    assert corrected([{"p_value": 0.2}], ["better"])[0]["verdict"] == "better"


def test_a_second_study_of_the_items_is_a_test_too(
    study: Study, result: StudyResult, report: Path, tmp_path: Path
) -> None:
    publish_card(tmp_path / "store", "notes")
    record_verdict(study, result, tmp_path / "store", report)
    assert len(open_report(report).p_values) == 2
    plan = {**study.plan, "created": "2030-01-01T00:00:00Z", "sha256": {"sealed.json": "f" * 64}}
    record_verdict(Study(study.folder, plan, study.items, study.assignments, study.tokens), result, tmp_path / "store",
                   report)  # fmt: skip
    content = content_of(report)
    assert len(content["ratings"]) == 2 and len(content["comparisons"]) == 3
    assert len(read_card(tmp_path / "store" / "notes").scores) == 3
