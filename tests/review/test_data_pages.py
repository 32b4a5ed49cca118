"""The page of training rows: the mask, the filters, and no text of data whose class does not allow it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lora_med.config.parse import parse
from lora_med.review.trained_rows import TrainedRows, load_trained_rows
from lora_med.review.web.data_pages import DataPages
from lora_med.review.web.page_templates import guarded


def trained_rows(folder: Path, access: str) -> TrainedRows:
    data = folder / "pairs.jsonl"
    rows = [{"input": f"Question {n}: which drug?", "output": f"Answer {n}: aspirin."} for n in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = ["model.base=micro", "data.source=custom", f"data.paths=[{data}]", "data.template=pair"]
    return load_trained_rows(parse(None, [*overrides, "adapter.name=notes", *([access] if access else [])]))


def client_of(trained: TrainedRows | None) -> TestClient:
    return TestClient(guarded(DataPages(trained).routes()), base_url="http://127.0.0.1:8080")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRows:
    return trained_rows(tmp_path_factory.mktemp("data"), "adapter.access=open")


def test_the_answer_is_marked_as_trained_and_the_question_is_not(trained: TrainedRows) -> None:
    page = client_of(trained).get("/data").text
    marked = re.findall(r'<span class="trained">(.*?)</span>', page, re.DOTALL)
    assert len(marked) == 20 and all("Answer" in text and "Question" not in text for text in marked)
    assert "Access class: <strong>open</strong>" in page


def test_rows_are_searched_and_filtered_by_length(trained: TrainedRows) -> None:
    wanted = next(n for n in range(60) if trained.selection(f"Question {n}:"))
    page = client_of(trained).get("/data", params={"search": f"Question {wanted}:"}).text
    assert f"1 of {len(trained.rows)} rows" in page and page.count('class="trained"') == 1
    lengths = [len(row.input_ids) for row in trained.rows]
    assert len(trained.selection(least=max(lengths))) == lengths.count(max(lengths))
    assert trained.selection(most=min(lengths) - 1) == []


def test_without_a_stated_class_no_text_is_shown_or_searched(tmp_path: Path) -> None:
    hidden = trained_rows(tmp_path, "")
    page = client_of(hidden).get("/data").text
    assert "no text is shown" in page and "Answer" not in page and "tokens," in page
    assert hidden.selection("aspirin") == []


def test_without_settings_the_page_says_how_to_name_them() -> None:
    assert "--config" in client_of(None).get("/data").text


@pytest.mark.parametrize("query", ["least=x", "most=-1", "page=²", "least=99999999999"])
def test_a_strange_query_is_no_error(trained: TrainedRows, query: str) -> None:
    assert client_of(trained).get(f"/data?{query}").status_code == 200
