"""Two reports side by side: paired where the items are the same, with a remark where they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.cli.main import run
from lora_med.errors import DataError, InputMissingError, IntegrityError
from lora_med.evaluation.report.compare_reports import side_by_side
from lora_med.evaluation.report.write_report import write_report
from tests.evaluation.test_report import choice_evaluation, text_evaluation


def test_equal_reports_differ_by_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report([text_evaluation(), choice_evaluation()], tmp_path / name, title=name)
    found = side_by_side(tmp_path / "a", tmp_path / "b" / "report.json", samples=200)
    chosen = {"accuracy", "accuracy by length", "macro-F1", "recall of yes", "recall of no", "recall of maybe"}
    assert {line.measure for line in found.lines} == {"nll", "perplexity", "bits per byte"} | chosen
    assert len(found.lines) == 2 * 3 + 2 * 6
    assert all(line.change is not None and line.change.difference == 0 for line in found.lines)
    assert all(line.change is not None and line.change.verdict == "cannot tell" for line in found.lines)
    assert found.remarks == ()


def test_an_adapter_of_another_name_is_set_against_the_first_ones(tmp_path: Path) -> None:
    whole = text_evaluation()
    write_report([whole], tmp_path / "a", title="a")
    better = whole.subjects[1].table * [0.5, 1, 1]
    renamed = replace(whole.subjects[1], adapter="other", table=better)
    write_report([replace(whole, subjects=(whole.subjects[0], renamed))], tmp_path / "b", title="b")
    found = side_by_side(tmp_path / "a", tmp_path / "b", samples=500)
    assert {(line.first_subject, line.second_subject) for line in found.lines} == {
        ("base", "base"),
        ("abstracts", "other"),
    }
    nll = next(line for line in found.lines if line.second_subject == "other" and line.measure == "nll")
    before = whole.subjects[1].table[:, 0].sum() / sum(item.tokens for item in whole.items)
    assert nll.change is not None and nll.change.difference == pytest.approx(-0.5 * before)
    assert nll.change.verdict == "better"


def test_other_items_give_no_difference_but_a_remark(tmp_path: Path) -> None:
    whole = text_evaluation()
    write_report([whole], tmp_path / "a", title="a")
    write_report([text_evaluation(count=40)], tmp_path / "b", title="b")
    found = side_by_side(tmp_path / "a", tmp_path / "b", samples=100)
    assert all(line.change is None for line in found.lines)
    assert any("60 items and 40" in remark for remark in found.remarks)


def test_a_task_of_only_one_report_gets_a_remark(tmp_path: Path) -> None:
    write_report([text_evaluation(), choice_evaluation()], tmp_path / "a", title="a")
    write_report([choice_evaluation()], tmp_path / "b", title="b")
    found = side_by_side(tmp_path / "a", tmp_path / "b", samples=100)
    assert any("only in the first report" in remark for remark in found.remarks)
    write_report([text_evaluation()], tmp_path / "c", title="c")
    with pytest.raises(DataError, match="no task in common"):
        side_by_side(tmp_path / "b", tmp_path / "c")


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        side_by_side(tmp_path, tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(IntegrityError):
        side_by_side(tmp_path, tmp_path)


def test_the_command_prints_a_table_and_the_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_report([choice_evaluation()], tmp_path / name, title=name)
    asked = ["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--bootstrap-samples", "50"]
    assert run(asked) == 0
    assert "accuracy" in capsys.readouterr().out
    assert run([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"][0]["change"]["difference"] == 0
    assert run(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "nowhere")]) == 66
