"""From stored ratings to the verdict, its files, and the export."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.errors import NotPermittedError, SettingsError
from lora_med.metrics.faithfulness import faithfulness
from lora_med.review.blind.rating import AXES, Mark, Rating
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.shown_text import sentence_ranges
from lora_med.review.blind.study import Study
from lora_med.review.verdict.study_export import export_study, harmless
from lora_med.review.verdict.study_result import unseal, write_verdict


def rate_all(study: Study, comment: str = "") -> None:
    """Every rater prefers the adapter, and marks each sentence whose dose is not in the prompt."""
    log = RatingLog(study)
    for each in study.assignments:
        prompt = study.items[each.item].prompt
        marks = tuple(
            Mark(side, start, end, "dangerous")
            for side, text in zip("ab", study.texts(each), strict=True)
            for start, end in sentence_ranges(text)
            if faithfulness(prompt, text[start:end]).unsupported_quantities
        )
        log.store(Rating(each.id, each.rater, each.adapter_side, dict.fromkeys(AXES, "equal"), comment, marks))


def test_no_verdict_and_no_export_while_sealed(study: Study, tmp_path: Path) -> None:
    rate_all(study)
    for attempt in (lambda: write_verdict(study), lambda: export_study(study, tmp_path / "out")):
        with pytest.raises(NotPermittedError, match="sealed"):
            attempt()


def test_unsealing_needs_a_reason(study: Study) -> None:
    with pytest.raises(SettingsError, match="1 words"):
        unseal(study, "because", incomplete=True)


def test_raters_who_all_prefer_the_adapter_give_better(study: Study) -> None:
    rate_all(study)
    event = unseal(study, "the chair, study complete")
    result = write_verdict(study)
    verdict = result.verdict
    assert (verdict.verdict, verdict.win_difference.value) == ("better", 1.0)
    assert (verdict.items_won, verdict.items_lost, verdict.items_rated) == (20, 0, 20)
    assert verdict.choices == {"adapter": 22}  # 20 items and two rated twice
    assert verdict.tests == 2 and verdict.p_value == pytest.approx(2 * 0.5**20)
    assert all(axis.value == 0 for axis in verdict.axes.values())
    assert verdict.side_a_share.value == pytest.approx(0.5, abs=0.1)
    assert verdict.repeat_consistency.value == 1
    content = json.loads((study.folder / "verdict.json").read_text())
    assert content["verdict"] == "better" and content["unsealed"] == event and content["plan"] == study.plan
    assert "notes is better than base" in (study.folder / "verdict.md").read_text()


def test_the_marks_measure_the_faithfulness_metric(study: Study) -> None:
    rate_all(study)
    unseal(study, "the chair, study complete")
    marks = write_verdict(study).marks
    assert marks.recall == 1.0  # each marked sentence has a dose that is not in its prompt
    assert marks.both == marks.marked > 0
    assert marks.precision is not None and marks.precision < 1  # the metric also flags the changed fever


def test_a_study_unsealed_early_says_so(study: Study) -> None:
    unseal(study, "the chair, out of time", incomplete=True)
    result = write_verdict(study)
    assert result.verdict.verdict == "cannot tell"
    assert any("Unsealed early: 0 of" in sentence for sentence in result.sentences)


def test_the_export_holds_every_rating_with_its_sides_opened(study: Study, tmp_path: Path) -> None:
    rate_all(study, '=HYPERLINK("http://evil.example")')
    unseal(study, "the chair, study complete")
    counts = export_study(study, tmp_path / "out")
    assert counts == {"ratings": len(study.assignments), "pairs": 20}
    rows = [json.loads(line) for line in (tmp_path / "out" / "ratings.jsonl").read_text().splitlines()]
    assert {row["choice"] for row in rows} == {"adapter"} and {row["accuracy"] for row in rows} == {"equal"}
    assert rows[0]["comment"].startswith("=HYPERLINK")
    with open(tmp_path / "out" / "ratings.csv", newline="", encoding="utf-8") as handle:
        table = list(csv.DictReader(handle))
    assert len(table) == len(rows) and table[0]["comment"].startswith("'=HYPERLINK")
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert about["plan"]["sha256"] == study.plan["sha256"] and len(about["seed"]) == 32


def test_pairs_have_the_winner_as_chosen(study: Study, tmp_path: Path) -> None:
    rate_all(study)
    unseal(study, "the chair, study complete")
    export_study(study, tmp_path / "out")
    pairs = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    by_uid = {item.uid: item for item in study.items}
    for pair in pairs:
        item = by_uid[pair["uid"]]
        assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (item.prompt, item.adapter_text, item.other_text)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\n=1"])
def test_a_formula_is_made_text(text: str) -> None:
    assert harmless(text) == f"'{text}"
    assert harmless("dose = 5") == "dose = 5"


def test_raters_who_disagree_have_no_agreement(study: Study) -> None:
    log = RatingLog(study)
    for each in study.assignments:
        other_side = {"a": "b", "b": "a"}[each.adapter_side]
        choice = each.adapter_side if each.kind != "second" else other_side
        log.store(Rating(each.id, each.rater, choice, dict.fromkeys(AXES, "a")))
    unseal(study, "the chair, study complete")
    agreement = write_verdict(study).verdict.agreement
    # Two items, each with one vote for either: observed disagreement 1, expected 2 * 2 * 2 / (4 * 3) = 2 / 3.
    assert agreement.value == pytest.approx(1 - 1 / (2 / 3))


@pytest.mark.parametrize("access", ["credentialed", "not stated", ""])
def test_items_whose_text_may_not_be_shown_are_in_no_export(study: Study, tmp_path: Path, access: str) -> None:
    rate_all(study)
    unseal(study, "the chair, study complete")
    restricted = replace(study, plan={**study.plan, "access": access})
    with pytest.raises(NotPermittedError, match="nothing of them is exported"):
        export_study(restricted, tmp_path / "out")
    assert not (tmp_path / "out").exists()
