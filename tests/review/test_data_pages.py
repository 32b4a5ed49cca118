"""The page of training rows: the mask, the filters, and no text of data whose class does not allow it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lora_med.config.parse import parse
from lora_med.errors import NotPermittedError
from lora_med.review.row_facts import RowFacts
from lora_med.review.trained_rows import RowFilter, TrainedRows, load_trained_rows
from lora_med.review.web.data_pages import DataPages
from lora_med.review.web.page_templates import guarded

QUESTIONS = [{"input": f"Question {n}: which drug?", "output": f"Answer {n}: aspirin."} for n in range(60)]


def trained_rows(
    folder: Path, access: str, permission: str | None = None, rows: Any = QUESTIONS, *overrides: str
) -> TrainedRows:
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    usual = ["model.base=micro", "data.source=custom", f"data.paths=[{data}]", "data.template=pair"]
    settings = parse(None, [*usual, "adapter.name=notes", *([access] if access else []), *overrides])
    return load_trained_rows(settings, permission)


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
    wanted = next(n for n in range(60) if trained.selection(RowFilter(f"Question {n}:")))
    page = client_of(trained).get("/data", params={"search": f"Question {wanted}:"}).text
    assert f"1 of {len(trained.rows)} rows" in page and page.count('class="trained"') == 1
    lengths = [len(row.input_ids) for row in trained.rows]
    assert len(trained.selection(RowFilter(least=max(lengths)))) == lengths.count(max(lengths))
    assert trained.selection(RowFilter(most=min(lengths) - 1)) == []


def test_without_a_stated_class_no_text_is_shown_or_searched(tmp_path: Path) -> None:
    hidden = trained_rows(tmp_path, "")
    page = client_of(hidden).get("/data").text
    assert "no text is shown" in page and "Answer" not in page and "tokens," in page
    assert hidden.selection(RowFilter("aspirin")) == []
    assert "Question" not in page and re.findall(r'<h2 id="row-1">(sha256:[0-9a-f]{16})</h2>', page)


def test_without_a_permission_nothing_is_shown_and_with_one_text_is_and_uids_stay_hashed(tmp_path: Path) -> None:
    shown = trained_rows(tmp_path, "adapter.access=credentialed", "the data office allows it, letter of May 3")
    page = client_of(shown).get("/data")
    assert "Answer" in page.text and "shown with the permission" in page.text
    assert "Access class: <strong>credentialed</strong>" in page.text and page.headers["cache-control"] == "no-store"
    assert re.findall(r'<h2 id="row-1">(sha256:[0-9a-f]{16})</h2>', page.text)
    with pytest.raises(NotPermittedError, match="showing the training rows"):
        trained_rows(tmp_path, "adapter.access=credentialed", "yes")


def test_without_settings_the_page_says_how_to_name_them() -> None:
    assert "--config" in client_of(None).get("/data").text


@pytest.mark.parametrize("query", ["least=x", "most=-1", "page=²", "least=99999999999"])
def test_a_strange_query_is_no_error(trained: TrainedRows, query: str) -> None:
    assert client_of(trained).get(f"/data?{query}").status_code == 200


def test_rows_are_filtered_by_label_cut_and_near_duplicate(tmp_path: Path) -> None:
    story = "The patient came with fever and cough for three days and was sent home with paracetamol and advice."
    rows = [
        {"input": f"{name} asks about drug number {n}", "output": "Yes.", "section": "PLAN" if n % 2 else "HISTORY"}
        for n, name in enumerate(("Ann", "Bea", "Cho", "Dan", "Eve", "Fay", "Gil", "Hua"))
    ]
    rows += [{"input": story, "output": "Yes.", "section": "PLAN"}, {"input": f"{story} Yes", "output": "No."}]
    rows += [{"input": "Long. " * 200, "output": "Yes."}]
    options = ("data.validation_share=0", "data.test_share=0", "train.max_length=128", "train.too_long=drop")
    trained = trained_rows(tmp_path, "adapter.access=open", None, rows, *options)
    texts = ["".join(text for text, _ in trained.shown(number).segments) for number in range(len(trained.rows))]
    with_label = {number for number, text in enumerate(texts) if "number 0" in text or "number 2" in text
                  or "number 4" in text or "number 6" in text}  # fmt: skip
    assert set(trained.labels) == {"PLAN", "HISTORY"} and trained.labels[0] == "PLAN"
    assert set(trained.selection(RowFilter(label="HISTORY"))) == with_label
    twins = trained.selection(RowFilter(kind="twin"))
    assert {texts[number].count(story) for number in twins} == {1} and len(twins) == 2
    assert trained.facts[twins[0]].twins == (twins[1],) and trained.facts[twins[1]].twins == (twins[0],)
    cut = trained.selection(RowFilter(kind="cut"))
    assert ["Long." in texts[number] for number in cut] == [True]
    assert sorted(cut + trained.selection(RowFilter(kind="complete"))) == list(range(len(texts)))
    page = client_of(trained).get("/data?kind=twin").text
    assert "near-duplicate of" in page and page.count('<div class="text"') == 2 and "label PLAN" in page
    assert '<strong class="flag">cut</strong>' in client_of(trained).get("/data?kind=cut").text


def test_what_was_left_out_is_listed_by_reason_and_uid(tmp_path: Path) -> None:
    trained = trained_rows(tmp_path, "adapter.access=open")
    more = replace(trained, dropped=[("custom: near duplicate", ["u<1>", "u2"], 998)])
    page = client_of(more).get("/data").text
    assert "Left out, custom: near duplicate: 1,000" in page and "u&lt;1&gt;, u2 and 998 more" in page


def test_rows_of_one_source_of_a_mixture_are_those_of_that_source() -> None:
    facts = [RowFacts("pubmed", (), False), RowFacts("custom", (), False)]
    assert [RowFilter(source="custom").admits(5, each, ()) for each in facts] == [False, True]
    assert all(RowFilter().admits(5, each, ()) for each in facts)
