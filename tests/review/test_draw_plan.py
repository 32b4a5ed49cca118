"""The sealed plan: what is drawn, balanced, repeated, and refused."""

from __future__ import annotations

import json
import random
import stat
from collections import Counter
from pathlib import Path

import pytest

from lora_med.errors import DataError, IntegrityError, NotPermittedError, SettingsError
from lora_med.review.blind.draw_plan import candidates, choose_items, draw_assignments, draw_study
from lora_med.review.blind.study import Study, StudyItem, open_study
from lora_med.review.item_texts import ItemText, read_item_texts
from lora_med.review.report_folder import choose_evaluation, open_report
from lora_med.review.verdict.detectable_wins import detectable_share, fewest_wins, power
from tests.review.small_report import adapter_answer, make_report


@pytest.mark.parametrize(("items", "share"), [(50, 0.705), (100, 0.65), (200, 0.605), (400, 0.575)])
def test_the_smallest_difference_is_that_of_the_exact_binomial(items: int, share: float) -> None:
    assert detectable_share(items) == pytest.approx(share)
    assert power(items, share) >= 0.8 > power(items, share - 0.005)


def test_five_items_find_nothing_and_six_need_all_wins() -> None:
    assert fewest_wins(5) is None and fewest_wins(6) == 6
    assert detectable_share(5) is None


@pytest.mark.parametrize("raters", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_each_item_is_rated_once_some_twice_and_sides_are_balanced(raters: int, seed: int) -> None:
    names = [f"R{number}" for number in range(raters)]
    drawn = draw_assignments(100, names, random.Random(seed))
    kinds = Counter(each.kind for each in drawn)
    assert sorted(each.item for each in drawn if each.kind == "first") == list(range(100))
    assert kinds["second"] == (10 if raters > 1 else 0)
    assert 5 <= kinds["repeat"] <= 5 + raters
    for rater in names:
        mine = [each for each in drawn if each.rater == rater]
        assert [each.position for each in mine] == list(range(1, len(mine) + 1))
        sides = Counter(each.adapter_side for each in mine if each.kind != "repeat")
        assert abs(sides["a"] - sides["b"]) <= 1
        unrepeated = [each.item for each in mine if each.kind != "repeat"]
        assert len(set(unrepeated)) == len(unrepeated)


@pytest.mark.parametrize("seed", range(10))
def test_a_repeat_exchanges_the_sides_and_does_not_follow_at_once(seed: int) -> None:
    drawn = draw_assignments(40, ["R1", "R2"], random.Random(seed))
    for each in drawn:
        if each.kind == "repeat":
            first = next(
                other for other in drawn if (other.rater, other.item) == (each.rater, each.item) and other is not each
            )
            assert first.adapter_side != each.adapter_side
            assert each.position - first.position >= 2


def test_items_are_drawn_from_each_stratum_in_proportion() -> None:
    items = [StudyItem(str(n), "", "x" if n < 60 else "y" if n < 90 else "z", "", "a", "b") for n in range(100)]
    chosen = choose_items(items, 20, random.Random(1))
    assert Counter(item.stratum for item in chosen) == {"x": 12, "y": 6, "z": 2}
    assert len({item.uid for item in chosen}) == 20


def test_a_study_is_sealed_and_its_secrets_are_private(study: Study) -> None:
    plan = json.loads((study.folder / "plan.json").read_text())
    assert plan["items"] == 20 and plan["raters"] == ["R1", "R2", "R3"]
    assert "adapter_side" not in json.dumps(plan)
    for name in ("sealed.json", "raters.json", "texts.jsonl"):
        assert stat.S_IMODE((study.folder / name).stat().st_mode) == 0o600
    assert len(set(study.tokens.values())) == 3


@pytest.mark.parametrize("name", ["sealed.json", "texts.jsonl"])
def test_a_file_changed_after_the_plan_is_refused(study: Study, name: str) -> None:
    path = study.folder / name
    path.write_bytes(path.read_bytes().replace(b"R1", b"R2", 1) + b"\n")
    with pytest.raises(IntegrityError, match=name):
        open_study(study.folder)


def test_the_prompt_comes_from_the_evaluated_files(small_report: tuple[Path, Path]) -> None:
    evaluation = choose_evaluation(open_report(small_report[0]), None)
    texts = read_item_texts(evaluation, [str(small_report[1])])
    assert texts["u2"].prompt == "Doctor: Which drug? Patient: I take metformin 30 mg daily. I have no fever."
    assert len(texts) == 40


def test_items_that_cannot_be_rated_are_counted_by_reason(tmp_path: Path) -> None:
    folder, _ = make_report(tmp_path, 10, base=lambda n, drug, dose: adapter_answer(n, drug, dose) if n < 3 else "No.")
    evaluation = choose_evaluation(open_report(folder), None)
    texts = {f"u{n}": ItemText("prompt" if n < 8 else "x" * 200_000, "") for n in range(9)}
    found = candidates(evaluation, "notes", "base", texts)
    assert len(found.items) == 5
    assert found.left_out == {
        "with equal answers": 3,
        "not in the files of --data": 1,
        "longer than 100,000 characters": 1,
    }


def test_more_items_than_there_are_and_too_few_are_refused(small_report: tuple[Path, Path], tmp_path: Path) -> None:
    report = open_report(small_report[0])
    texts = read_item_texts(report.evaluations[0], [str(small_report[1])])
    for items in (5, 41):
        with pytest.raises(SettingsError, match=f"{items} items cannot be rated"):
            draw_study(report, report.evaluations[0], texts, tmp_path / "s", adapter="notes", items=items, raters=1)
    assert not (tmp_path / "s").exists()


def test_credentialed_items_cannot_be_rated(tmp_path: Path) -> None:
    folder, _ = make_report(tmp_path, 10, access="credentialed")
    with pytest.raises(NotPermittedError, match="credentialed"):
        candidates(choose_evaluation(open_report(folder), None), "notes", "base", {})


def test_files_of_other_items_are_refused(small_report: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"uid": "z", "input": "a question", "output": "an answer"}) + "\n")
    with pytest.raises(DataError, match="none of the report's 40 items"):
        read_item_texts(choose_evaluation(open_report(small_report[0]), None), [str(other)])
