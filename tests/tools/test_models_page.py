"""The table of families: written by hand here, and some of its rows run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.family_capabilities import CAPABILITIES, COLUMNS, GGUF, YES, capabilities, exports_gguf, gguf_answer
from tests.tiny_families import ALL, EXPERTS
from tools.models_page import BEGIN, BEGIN_EXPERTS, END, PAGE, read_page, table


def test_a_row_says_yes_or_points_to_the_sentence() -> None:
    results = {
        "one": {"train": "yes", "packed": "it has no attention", "share": "68%"},
        "two": {"train": "yes", "packed": "it has no attention"},
    }
    assert table(results, ("train", "packed", "share")) == (
        "| family | train | packed | share |\n|---|---|---|---|\n"
        "| `one` | yes | no [1] | 68% |\n| `two` | yes | no [1] | not run |\n\n1. it has no attention\n"
    )


def test_a_page_that_is_read_is_written_as_it_was() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert table(read_page(), COLUMNS).strip() == text.strip()


def rows(begin: str = BEGIN) -> dict[str, list[str]]:
    lines = PAGE.read_text(encoding="utf-8").partition(begin)[2].partition(END)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {family.strip("`"): answers for family, *answers in cells}


def test_the_page_has_a_row_for_every_family_and_most_train_and_merge_with_proof() -> None:
    table_rows = rows()
    assert list(table_rows) == list(ALL)
    train, proved = COLUMNS.index("train"), COLUMNS.index("merge proved")
    assert sum(answers[train] == answers[proved] == "yes" for answers in table_rows.values()) >= 0.9 * len(ALL)


def test_every_family_with_routed_experts_trains_them_and_merges_with_proof() -> None:
    table_rows = rows(BEGIN_EXPERTS)
    assert list(table_rows) == list(EXPERTS)
    for column in ("train", "two processes", "4-bit", "merge proved", "evaluated", "loads in PEFT"):
        assert {answers[CAPABILITIES.index(column)] for answers in table_rows.values()} == {"yes"}


@pytest.mark.slow
@pytest.mark.parametrize("family", EXPERTS)
def test_a_row_of_adapted_experts_is_what_comes_out(family: str, tmp_path: Path) -> None:
    answers = capabilities(family, tmp_path, experts=True)
    shown = dict(zip(CAPABILITIES, rows(BEGIN_EXPERTS)[family], strict=True))
    assert {name for name, answer in answers.items() if answer == "yes"} == {
        name for name, answer in shown.items() if answer == "yes"
    }
    assert answers["share"] == shown["share"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "deepseek_v3", "falcon_h1", "llama4_text", "mllama", "opt"])
def test_a_row_of_the_page_is_what_comes_out(family: str, tmp_path: Path) -> None:
    answers = capabilities(family, tmp_path)
    shown = dict(zip(COLUMNS, rows()[family], strict=True))
    del shown[GGUF]
    assert {name: answer for name, answer in answers.items() if answer == "yes"} == {
        name: answer for name, answer in shown.items() if answer == "yes"
    }
    assert answers["share"] == shown["share"]


@pytest.mark.slow
@pytest.mark.skipif(not exports_gguf(), reason="run `lora-med export setup` first")
@pytest.mark.parametrize("family", ["qwen2", "lfm2"])
def test_the_column_of_gguf_is_what_comes_out(family: str, tmp_path: Path) -> None:
    assert gguf_answer(family, tmp_path) == YES == read_page()[family][GGUF]
