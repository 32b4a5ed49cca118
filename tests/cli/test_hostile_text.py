"""Rows, names and labels that try to act on a terminal or a page are shown, wherever text from files is printed."""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from lora_med.audit.data_check import check_data
from lora_med.audit.preview import page, spell
from lora_med.cli.main import run
from lora_med.cli.terminal import cell, console, new_table, print_text
from lora_med.config.parse import parse
from lora_med.errors import DataError
from lora_med.evaluation.report.page import (
    Cell,
    Finding,
    Page,
    SampleBox,
    Section,
    Table,
    text_row,
    to_html,
    to_markdown,
)
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.results import Sample
from lora_med.prompts.row import Row
from lora_med.prompts.tokens_and_labels import tokenize_rows
from lora_med.run import set_up_logging
from lora_med.training.rows.preflight import color_row, show_rows
from tests.evaluation.test_report import text_evaluation
from tests.tiny import make_tiny, make_tokenizer

HOSTILE = "\x1b[2J\x1b]8;;http://evil.example\x1b\\ok\x07\rover\u202egm 01\u200b\x9b31m\b\U000e0041"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
CLI = Path(__file__).parents[2] / "lora_med" / "cli"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Rows whose uid, text, label and every other word are hostile; frequent words too."""
    path = tmp_path / "rows.jsonl"
    lines = [
        {"uid": f"{HOSTILE}{n}", "text": f"{HOSTILE} text {n} " + f"wor\u200bd{n} " * 9, "label": f"{HOSTILE}{n % 2}"}
        for n in range(60)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("columns", ["{}", "{label: label}"])
def test_check_and_preview_show_hostile_rows(
    base: Path, hostile: Path, columns: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = ["data.source=custom", f"data.paths=[{hostile}]", f"data.columns={columns}", f"model.base={base}"]
    here.append("adapter.access=open")
    for arguments in (["check"], ["check", "--json"], ["preview"], ["preview", "--json"]):
        assert run(["data", arguments[0], *here, *arguments[1:]]) == 0
        shown = capsys.readouterr()
        assert not ACTS.search(shown.out) and not ACTS.search(shown.err)
        assert ("␛[2J" in shown.out) or "--json" in arguments or columns == "{}"
    html = tmp_path / "page.html"
    assert run(["data", "preview", *here, "--out", str(html)]) == 0
    assert not ACTS.search(html.read_text()) and "␛[2J" in html.read_text()


def test_what_a_run_shows_of_its_rows_acts_on_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    (tokens,) = tokenize_rows([Row(HOSTILE, "g", (), HOSTILE, HOSTILE)], make_tokenizer())
    show_rows([tokens], make_tokenizer(), access="open", width=500)
    shown = capsys.readouterr().err
    assert not ACTS.search(shown) and shown.count("␛[2J") == 3
    assert not ACTS.search(color_row(tokens, make_tokenizer()).plain)


def test_logs_and_errors_act_on_nothing(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    logging.getLogger("lora_med.test").warning("uid %s", HOSTILE)
    path = tmp_path / f"{HOSTILE[:4]}name.jsonl"
    path.write_text(json.dumps({HOSTILE: 1}) + "\n")
    for extra in ([], ["--debug"], ["--json"]):
        assert run(["data", "read", "custom", str(path), "--out", str(tmp_path / "o.jsonl"), *extra]) != 0
    assert run(["data", "read", f"custom{HOSTILE}", str(path), "--out", str(tmp_path / "o.jsonl")]) == 2
    shown = capsys.readouterr()
    assert not ACTS.search(shown.err) and not ACTS.search(shown.out) and "␛[2J" in shown.err


def test_tables_show_no_markup_and_nothing_that_acts(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table(("a", "b", HOSTILE))
    table.add_row(cell("[red]x[/red] [/]", "bold"), HOSTILE, "")
    console().print(table)
    console().print(f"note {HOSTILE}", markup=False)
    print_text(DataError(HOSTILE, where=HOSTILE))
    shown = capsys.readouterr().out
    assert "[red]x[/red] [/]" in shown and not ACTS.search(shown) and shown.count("␛[2J") == 5
    assert isinstance(cell("a"), Text)


EVIL = f"{HOSTILE}</td><script>alert(1)</script> | ![x](http://evil.example/i.png) `a` **b** <img src=x> &amp; _c_ a\nb"


def evil_page() -> Page:
    table = Table((Cell(EVIL), Cell("n", "number")), (text_row(EVIL, Cell("1", "number")),), EVIL, ((EVIL, EVIL),))
    section = Section(EVIL, (EVIL,), (), (table,), (SampleBox(EVIL, EVIL, ((EVIL, EVIL),)),), (f"lora-med {EVIL}",))
    return Page(EVIL, "made", (Finding(Cell(EVIL, "better"), EVIL),), (section,))


def test_a_markdown_report_holds_no_html_no_link_and_no_row_of_its_own() -> None:
    text = to_markdown(evil_page())
    prose = text.split("```")[0]
    assert not ACTS.search(text) and "␛[2J" in text
    assert "<" not in prose and "&lt;script&gt;" in prose and "&amp;amp;" in prose
    assert "![x](" not in prose and "!\\[x\\](http" in prose
    assert not re.search(r"(?<!\\)[`*](?!\*)", re.sub(r"(?m)^- |\*\*", "", prose).replace("\\*\\*", ""))
    rows = [line for line in prose.splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {3}
    assert text.split("```")[1].count("\n") == 2


def test_an_html_report_escapes_and_shows() -> None:
    html = to_html(evil_page())
    assert not ACTS.search(html) and "␛[2J" in html
    assert "<script>alert" not in html and "<img" not in html and "&lt;script&gt;" in html


def test_samples_of_a_hostile_model_are_shown_in_every_file(tmp_path: Path) -> None:
    sample = Sample(HOSTILE, EVIL, EVIL, {"base": EVIL, "abstracts": EVIL})
    report = write_report([dataclasses.replace(text_evaluation(), samples=(sample,))], tmp_path, title="t")
    for path in (report.html, report.markdown):
        assert not ACTS.search(path.read_text()) and "<script>" not in path.read_text()


def test_a_preview_page_shows_hostile_rows(hostile: Path) -> None:
    tokenizer: Any = make_tokenizer()
    check, _ = check_data(parse(None, ["data.source=custom", f"data.paths=[{hostile}]"]), tokenizer)
    (tokens,) = tokenize_rows([Row(HOSTILE, "g", (), EVIL, EVIL)], tokenizer)
    html = page(check, [spell(tokens, tokenizer)], base=HOSTILE)
    assert not ACTS.search(html) and "<script>" not in html and html.count("␛[2J") >= 4


@pytest.mark.parametrize("path", sorted(CLI.rglob("*.py")), ids=lambda path: str(path.relative_to(CLI)))
def test_commands_print_through_the_one_function(path: Path) -> None:
    """`print` is called in cli/terminal.py alone: print_text makes visible what acts on a terminal."""
    called = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert called == [] or path.name == "terminal.py", f"{path}: use print_text in lines {called}"
