"""Files as hospitals, annotators and vendors export them: `init` reads each, or says by name what to state."""

from __future__ import annotations

import csv
import datetime
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from lora_med.cli.main import run
from lora_med.config.parse import parse

DRUGS = ("amoxicillin", "metoprolol", "furosemide", "morphine")
SIGNS = ("Fever", "Chest pain", "Swelling", "Rash", "Thirst")
COUNT = 40
SEPARATE = ["--set", "data.near_duplicate_similarity=0"]  # invented notes are worded alike


def note(number: int) -> str:
    return f"{SIGNS[number % 5]} for {number + 2} days, then {DRUGS[number % 4]} was given in ward {number}."


def table(name: str, header: Sequence[str], row: Callable[[int], Sequence[Any]]) -> None:
    with open(name, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(row(number) for number in range(COUNT))


def lines(name: str, row: Callable[[int], dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row(number)) + "\n" for number in range(COUNT)), encoding="utf-8")


def department_workbook() -> str:
    book = openpyxl.Workbook()
    sheet: Any = book.active
    sheet.title = "Befunde"
    sheet.append(["Fallnummer", "Patientennr", "Datum", "Befundtext"])
    for number in range(COUNT):
        sheet.append([number, number // 3, datetime.date(2024, 1, 1 + number % 28), note(number)])
    book.create_sheet("Legende").append(["nothing"])
    book.save("befunde.xlsx")
    return "befunde.xlsx"


def transcriptions() -> str:
    header = ("", "description", "medical_specialty", "transcription", "keywords")
    table("kaggle.csv", header, lambda n: (n, "A visit", SIGNS[n % 2], f"SUBJECTIVE:, {note(n)}", "cough"))
    return "kaggle.csv"


def registry_export() -> str:
    header = ("record_id", "redcap_event_name", "symptoms_text", "plan_text", "consult_complete")
    table("redcap.csv", header, lambda n: (f"R-{n // 3}", "baseline_arm_1", note(n), f"{DRUGS[n % 4]} {n} mg", 2))
    return "redcap.csv"


def reasoned_answers() -> str:
    lines("o1.jsonl", lambda n: {"Question": note(n), "Complex_CoT": f"Consider {n}.", "Response": DRUGS[n % 4]})
    return "o1.jsonl"


def dialogues() -> str:
    rows = [
        {"id": n, "dialog": [{"speaker": "Doctor", "utterance": note(n)}], "summary": "Fine."} for n in range(COUNT)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "dialog.parquet")
    return "dialog.parquet"


def nested_questions() -> str:
    options = [{"label": letter, "text": drug} for letter, drug in zip("ABCD", DRUGS, strict=True)]
    items = [
        {"qid": n, "question": {"stem": note(n), "choices": options}, "answerKey": "ABCD"[n % 4]} for n in range(COUNT)
    ]
    Path("nested.json").write_text(json.dumps({"info": {"version": 1}, "items": items}))
    return "nested.json"


def vendor_entities() -> str:
    entity = {"BeginOffset": 0, "EndOffset": 5, "Text": "Fever", "Category": "MEDICAL_CONDITION"}
    lines("comprehend.jsonl", lambda n: {"File": f"{n}.txt", "Text": f"Fever {n}.", "Entities": [entity]})
    return "comprehend.jsonl"


def portal_archive() -> str:
    with zipfile.ZipFile("portal.zip", "w") as archive:
        archive.writestr("__MACOSX/notes/._a.txt", b"\0\5\x16\7")
        for number in range(COUNT):
            archive.writestr(f"notes/p{number // 3:02}/visit{number % 3}.txt", note(number))
    return "portal.zip"


def preferences() -> str:
    lines("dpo.jsonl", lambda n: {"prompt": note(n), "chosen": DRUGS[n % 4], "rejected": "nothing"})
    return "dpo.jsonl"


def several_classes() -> str:
    table("onehot.csv", ("note_id", "note", "cardiac", "pain"), lambda n: (n, note(n), n % 2, (n + 1) % 2))
    return "onehot.csv"


# What makes the file, the code of `init FILE --yes --access open`, what its message names, and the flags that mend it.
SHAPES: tuple[tuple[Callable[[], str], int, str, str], ...] = (
    (
        department_workbook,
        65,
        "--sheet 'Befunde'",
        "--sheet Befunde --column text=Befundtext --column group=Patientennr",
    ),
    (transcriptions, 65, "--column text=transcription", "--column text=transcription"),
    (
        registry_export,
        65,
        "symptoms_text",
        "--column prompt=symptoms_text --column completion=plan_text --column group=record_id",
    ),
    (reasoned_answers, 65, "--ignore-column Complex_CoT", "--ignore-column Complex_CoT"),
    (dialogues, 65, "id, dialog, summary", ""),
    (
        nested_questions,
        65,
        "question.stem, question.choices, answerKey",
        "--column question=question.stem --column options=question.choices --column answer_idx=answerKey",
    ),
    (vendor_entities, 65, "'Entities' holds content", "--ignore-column Entities"),
    (portal_archive, 0, "", ""),
    (preferences, 0, "", ""),
    (several_classes, 65, "--column text=note", "--column text=note"),
)


@pytest.mark.parametrize(("make", "code", "named", "flags"), SHAPES, ids=[make.__name__ for make, *_ in SHAPES])
def test_a_file_is_read_or_says_what_to_state(
    make: Callable[[], str],
    code: int,
    named: str,
    flags: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["init", make(), "--yes", "--access", "open", *SEPARATE]
    assert run(command) == code
    assert named in capsys.readouterr().err
    if code and flags:
        assert not Path("run.yaml").exists()
        assert run([*command, *flags.split()]) == 0
    if not code or flags:
        assert run(["data", "check", "--config", "run.yaml"]) == 0
        assert parse("run.yaml").train.max_length == 256


def test_preferences_are_learned_as_such_or_from_the_chosen_side_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["init", preferences(), "--yes", "--access", "open", *SEPARATE]
    chosen_alone = ["--column", "completion=chosen", "--ignore-column", "rejected", "--out", "sft.yaml"]
    assert [run(command), run([*command, *chosen_alone])] == [0, 0]
    assert [parse(name).train.method for name in ("run.yaml", "sft.yaml")] == ["dpo", "sft"]
