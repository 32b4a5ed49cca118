"""What `lora-med eval` refuses, by the command: each time the file and the item are named, and no report is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.cli.main import run
from tests.tiny import make_tiny

CHOICE = {"question": "Does it help?", "options": ["yes", "no"], "answer": "yes"}
LETTERED = {
    "id": "1",
    "question": "Which?",
    "opa": "a",
    "opb": "b",
    "opc": "c",
    "opd": "d",
    "cop": 0,
    "subject_name": "Surgery",
}
DATA, SETTINGS = 65, 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"))


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


@pytest.mark.parametrize(
    ("rows", "asked", "code", "said", "item"),
    [
        ([CHOICE, without(CHOICE, "answer")], "choice", DATA, "no column 'answer'", "rows.jsonl:2"),
        ([CHOICE, CHOICE | {"answer": "perhaps"}], "choice", DATA, "expected one of the 2 options", "rows.jsonl:2"),
        ([CHOICE, CHOICE | {"options": ["yes", ""]}], "choice", DATA, "item 2: expected a text", "rows.jsonl:2"),
        ([CHOICE | {"options": ["yes"]}], "choice", DATA, "a question of 1 options", "rows.jsonl:1"),
        ([LETTERED, without(LETTERED, "opd")], "medmcqa", DATA, "opd", "rows.jsonl:2"),
        (
            [{"uid": "a"} | CHOICE, {"uid": "a"} | CHOICE | {"question": "Does that help?"}],
            "choice",
            DATA,
            "two different records have the uid 'a'",
            "rows.jsonl, record 2",
        ),
        ([], "choice", DATA, "the file is empty (0 bytes)", "rows.jsonl"),
        ([{"text": "It was tried."}], "choice", SETTINGS, "takes a Question", "rows.jsonl:1 is a Passage"),
        ([{"text": "It was tried."}], "entities", SETTINGS, "takes an Annotated", "rows.jsonl:1 is a Passage"),
        ([CHOICE], "note", SETTINGS, "takes a Pair", "rows.jsonl:1 is a Question"),
        ([CHOICE], "bc5cdr", DATA, "expected PMID|t|title", "rows.jsonl:1"),
    ],
)
def test_bad_input_is_refused_with_its_file_and_item(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[dict[str, Any]],
    asked: str,
    code: int,
    said: str,
    item: str,
) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if asked in ("medmcqa", "bc5cdr"):
        task = ["--task", f"{asked}:{path}"]
    else:
        task = ["--source", "custom", "--template", asked, "--data", str(path), "--access", "open"]
    assert run(["eval", "--base", str(base), "--out", str(out), "--split", "validation", *task]) == code
    told = capsys.readouterr().err
    assert said in told and item in told
    assert not list(out.glob("*"))
