"""The loss chart: each value at its place, nothing that is no number, and a whole SVG without style or script."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lora_med.review.web.loss_chart import loss_chart, spread
from lora_med.review.web.page_templates import guarded
from lora_med.review.web.run_pages import RunPages


def test_each_value_is_at_its_place() -> None:
    chart = loss_chart([{"step": 0, "loss": 3.0}, {"step": 50, "loss": 2.0, "lr": 1.0}, {"step": 100, "loss": 1.0}])
    assert chart is not None and [curve.name for curve in chart.curves] == ["loss"]
    # 560 by 230 pixels; the axes leave 52 at the left, 12 at the right, 10 at the top, and 40 at the bottom.
    assert chart.curves[0].points == "52,10 300,100 548,190"
    assert chart.curves[0].marks == ((52, 10), (300, 100), (548, 190))
    assert chart.steps[0] == (52, "0") and chart.steps[-1] == (548, "100")
    assert chart.values[0] == (190, "1") and chart.values[-1] == (10, "3")


def test_values_of_evaluations_are_a_curve_of_their_own() -> None:
    lines = [{"step": n, "loss": 5 - n / 100} for n in range(400)] + [
        {"step": 400, "eval_nll": 2},
        {"step": 500, "eval_nll": 1},
    ]
    chart = loss_chart(lines)
    assert chart is not None
    loss, evaluated = chart.curves
    assert len(loss.points.split()) == 200 and loss.marks == () and (loss.first, loss.last) == ("5", "1.01")
    assert evaluated.name == "eval_nll" and len(evaluated.marks) == 2


@pytest.mark.parametrize("text", ["NaN", "Infinity", '"x"', "null", "1e400", "[1]", "true"])
def test_what_is_no_number_is_no_point(text: str) -> None:
    lines = [json.loads(f'{{"step": {step}, "loss": {step}}}') for step in (1, 2)]
    chart = loss_chart(
        [*lines, json.loads(f'{{"step": 3, "loss": {text}}}'), json.loads(f'{{"step": {text}, "loss": 9}}')]
    )
    assert chart is not None and len(chart.curves[0].points.split()) == 2


@pytest.mark.parametrize(
    "lines", [[], [{"step": 1, "loss": 2.0}], [{"loss": 2.0}, {"loss": 1.0}], [{"step": 1, "acc": 1}] * 3]
)
def test_without_two_steps_there_is_no_chart(lines: list[dict[str, float]]) -> None:
    assert loss_chart(lines) is None


def test_a_level_curve_is_drawn_in_the_middle() -> None:
    chart = loss_chart([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 2.0}])
    assert chart is not None and chart.curves[0].points == "52,100 548,100"


def test_of_many_lines_the_first_and_the_last_are_kept() -> None:
    shown = spread(list(range(10_000)))
    assert len(shown) == 200 and (shown[0], shown[-1]) == (0, 9_999)


def test_the_page_of_a_run_holds_the_chart_and_the_class_of_its_data(tmp_path: Path) -> None:
    for name, access in (("notes", "registered"), ("broken", "x"), ("new", None)):
        folder = tmp_path / name
        folder.mkdir()
        names = {"loss": 2.5, "<b>loss": 1.0}
        (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": n, **names}) + "\n" for n in (1, 2)))
        if access is not None:
            (folder / "run.json").write_text(json.dumps({"data": {"access": access}}))
    client = TestClient(guarded(RunPages(tmp_path).routes()), base_url="http://127.0.0.1:8080")
    page = client.get("/runs/notes").text
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])
    assert [element.tag for element in svg.iter("polyline")] == ["polyline"] * 2
    assert "Access class: <strong>registered</strong>" in page and "<b>" not in page and " style=" not in page
    for name in ("broken", "new"):
        assert "Access class: <strong>not stated</strong>" in client.get(f"/runs/{name}").text
    assert "Access class: <strong>not stated</strong>" in client.get("/runs").text
