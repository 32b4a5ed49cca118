"""The commands of a study from plan to export, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_med.cli import main
from lora_med.review.blind.rating import AXES, Rating
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.study import open_study

PLAN = ("plan", "{report}", "--data", "{data}", "--out", "{out}", "--items", "9")


def run(*words: object) -> int:
    """The exit code of `lora-med review` with these words."""
    return main.run(["review", *map(str, words)])


def test_a_study_goes_from_plan_to_export(
    small_report: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, data = small_report
    study = tmp_path / "study"
    assert run("plan", report, "--data", data, "--items", 20, "--raters", 1, "--out", study) == 0
    shown = capsys.readouterr().out
    assert "20 items of custom, test: notes against base, 1 rater," in shown
    assert "Smallest preference that 4 of 5 such studies find: 80.0% wins" in shown and "R1: /rate/" in shown
    opened = open_study(study)
    log = RatingLog(opened)
    for each in opened.assignments:
        log.store(Rating(each.id, each.rater, each.adapter_side, dict.fromkeys(AXES, "a")))
    assert run("verdict", study) == 77 and run("export", study, "--out", tmp_path / "out") == 77
    assert run("unseal", study, "--reason", "the chair, study complete") == 0
    capsys.readouterr()
    assert run("verdict", study, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["verdict"] == "better" and content["items_rated"] == 20
    assert run("export", study, "--out", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 20


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (("nothing",), 66),
        (("nothing", "plan"), 2),
        (("{report}", "--adapter", "none"), 66),
        (("{report}", "--column", "text"), 2),
        (("--base", "no-such-base"), 66),
        (("{report}", *(word for name in "abcde" for word in ("--adapter", name))), 2),
        (("rate", "nothing"), 66),
        (("plan", "{report}", "--items", "9", "--raters", "1", "--out", "{out}"), 2),
        (("plan", "nothing", "--data", "x", "--items", "9", "--raters", "1", "--out", "y"), 66),
        (("plan", "{report}", "--data", "{data}", "--items", "5", "--raters", "1", "--out", "{out}"), 2),
        ((*PLAN, "--raters", "10"), 2),
        ((*PLAN, "--raters", "0"), 2),
        (("plan", "{report}", "--data", "none.jsonl", "--items", "9", "--raters", "1", "--out", "{out}"), 66),
        ((*PLAN, "--raters", "1", "--adapter", "other"), 2),
        ((*PLAN, "--raters", "1", "--against", "notes"), 2),
        ((*PLAN, "--raters", "1", "--template", "label"), 2),
    ],
)
def test_what_is_wrong_ends_with_its_code_and_writes_nothing(
    small_report: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    paths = {"report": small_report[0], "data": small_report[1], "out": tmp_path / "out"}
    assert run(*(word.format(**paths) for word in words)) == code
    assert not (tmp_path / "out").exists()


def test_a_plan_does_not_replace_a_study(small_report: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("plan", small_report[0], "--data", small_report[1], "--items", 9, "--raters", 1, "--out", tmp_path / "s")
    assert run(*words) == 0
    before = (tmp_path / "s" / "sealed.json").read_bytes()
    assert run(*words) == 73
    assert (tmp_path / "s" / "sealed.json").read_bytes() == before
