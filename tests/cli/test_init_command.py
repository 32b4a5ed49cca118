"""`lora-med init`: from files to settings that train, nothing guessed without its reason, and what is missing asked."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from lora_med.cli.main import run
from lora_med.config.parse import parse
from tests.tiny import make_tiny

ROWS = [(f"p{number // 3}", f"What is compound {number} for?", f"It lowers value {number}.") for number in range(60)]


@pytest.fixture
def rows_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.csv"
    lines = ["mrn,prompt,completion", *(",".join(row) for row in ROWS)]
    path.write_text("\n".join(lines) + "\n")
    return path


STATED = ["--yes", "--access", "open", "--column", "group=mrn", "--set", "data.near_duplicate_similarity=0"]


def test_the_written_file_is_one_that_trains(rows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "rows.csv", *STATED, "--name", "tiny", "--set", "train.max_steps=1"]) == 0
    shown = capsys.readouterr().out
    assert "mrn as group" in shown
    assert "It lowers value" in shown  # three rows, as they would be trained
    settings = parse("run.yaml")
    assert settings.data.columns == {"group": "mrn"}
    assert (settings.adapter.name, settings.adapter.access, settings.train.max_length) == ("tiny", "open", 256)
    assert run(["train", "--config", "run.yaml"]) == 0
    assert capsys.readouterr().err.count("columns used") == 1  # a run says it once
    assert (rows_file.parent / "adapters" / "tiny" / "card.json").is_file()


def test_each_value_has_its_reason(rows_file: Path) -> None:
    assert run(["init", "rows.csv", *STATED]) == 0
    lines = Path("run.yaml").read_text().splitlines()
    values = [number for number, line in enumerate(lines) if line.startswith("  ") and not line.strip().startswith("#")]
    assert len(values) > 8
    assert all(lines[number - 1].strip().startswith("# ") for number in values)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--access", "open"], "mrn"),
        (["--column", "group=mrn"], "credentialed"),
    ],
)
def test_what_only_the_user_knows_is_never_guessed(
    flags: list[str], named: str, rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "rows.csv", "--yes", *flags]) == 2
    assert named in capsys.readouterr().err
    assert not Path("run.yaml").exists()


def test_files_of_two_sources_and_an_existing_file_are_refused(
    rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.txt").write_text("A note.\n")
    assert run(["init", "rows.csv", "a.txt", *STATED]) == 2
    assert "custom: rows.csv" in capsys.readouterr().err
    Path("run.yaml").write_text("mine: true\n")
    assert run(["init", "rows.csv", *STATED]) == 73
    assert Path("run.yaml").read_text() == "mine: true\n"


def test_rows_of_credentialed_data_are_not_shown(rows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [flag if flag != "open" else "credentialed" for flag in STATED]
    assert run(["init", "rows.csv", *flags]) == 0
    output = capsys.readouterr()
    assert "lowers value" not in output.out + output.err
    assert "not shown" in output.out


def test_a_first_line_of_text_in_place_of_names_is_not_shown_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    note = "Mrs Roe was seen on the ward today with a cough and a fever"
    Path("notes.csv").write_text(f"{note},{note} again\nA second note,a third\n")
    code = run(["init", "notes.csv", "--yes", "--access", "credentialed", "--json"])
    output = capsys.readouterr()
    assert code == 65
    assert "Roe" not in output.out + output.err
    mapped = ["--column", f"prompt={note}", "--column", f"completion={note} again"]
    Path("notes.csv").write_text(
        f"{note},{note} again\n" + "".join(f"Compound {n} is for what?,Value {n}.\n" for n in range(60))
    )
    stated = ["--set", "data.near_duplicate_similarity=0", "--column", "group=none"]
    assert run(["init", "notes.csv", "--yes", "--access", "open", *mapped, *stated]) == 0
    reasons = [line for line in Path("run.yaml").read_text().splitlines() if line.strip().startswith("#")]
    assert not any("Roe" in line for line in reasons)


def test_json_holds_the_settings_with_their_reasons(rows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "rows.csv", *STATED, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["patient_columns"] == ["mrn"]
    assert {"key": "adapter.access", "value": "open"}.items() <= next(
        item.items() for item in report["settings"] if item["key"] == "adapter.access"
    )


def test_on_a_terminal_it_asks(rows_file: Path) -> None:
    rows_file.write_text(rows_file.read_text().replace("mrn,prompt,completion", "mrn,asked,reply"))
    controller, terminal = pty.openpty()
    answers = ["prompt", "asked", "nothing", "reply", "mrn", "open", "micro"]  # `nothing` is no column, asked again
    os.write(controller, "".join(f"{answer}\n" for answer in answers).encode())
    done = subprocess.run(
        [sys.executable, "-m", "lora_med", "init", "rows.csv", "--set", "data.near_duplicate_similarity=0"],
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=120,
    )
    os.close(terminal)
    os.close(controller)
    assert done.returncode == 0, done.stderr
    assert "'nothing' is none of mrn, asked, reply" in done.stdout
    assert parse("run.yaml").data.columns == {"prompt": "asked", "completion": "reply", "group": "mrn"}


def lines_of(output: str, label: str) -> list[str]:
    return [line.removeprefix(label).strip() for line in output.splitlines() if line.startswith(f"{label} ")]


def test_each_finding_has_a_line_of_its_own_with_its_reason(
    rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = rows_file.read_text().replace("It lowers value 7.", "Call 617-555-0142.")
    rows_file.write_text(text)
    assert run(["init", "rows.csv", *STATED]) == 0
    output = capsys.readouterr()
    assert lines_of(output.out, "encoding") == ["utf-8: its beginning is ASCII, which UTF-8 contains"]
    assert lines_of(output.out, "patient") == ["mrn (in rows.csv): named like a patient"]
    (identifiers,) = lines_of(output.out, "identifiers")
    assert identifiers.startswith("1 records contain something with the shape of an identifier: PHONE 1")
    assert sorted(lines_of(output.out, "meaning")) == [
        "completion is the completion: by its name",
        "mrn is the group: as stated",
        "prompt is the prompt: by its name",
    ]
    assert lines_of(output.out, "context")[0].startswith("the base takes 1,024 tokens")
    assert output.err.count("columns used") == 0  # the report says it, once


def test_the_stricter_class_of_the_source_is_the_one_written(
    rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{n}-DS-1,{n},{n},DS,1,2180-01-01,2180-01-01,A note {n} of the ward." for n in range(20)]
    header = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"
    Path("discharge.csv").write_text("\n".join([header, *rows]) + "\n")
    assert run(["init", "discharge.csv", "--yes", "--access", "open"]) == 0
    assert "of the ward" not in capsys.readouterr().out
    assert parse("run.yaml").adapter.access == "credentialed"


def test_few_records_leave_some_in_each_split(rows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file.write_text("text\nOne thing.\nTwo things.\nThree things.\n")
    assert run(["init", "rows.csv", "--yes", "--access", "open"]) == 0
    assert run(["train", "--config", "run.yaml", "train.max_steps=1"]) == 0
    capsys.readouterr()
    rows_file.write_text("text\nOne thing.\n")
    assert run(["init", "rows.csv", "--yes", "--access", "open", "--out", "one.yaml"]) == 2
    assert "validates on records that it does not train on" in capsys.readouterr().err


def test_the_name_is_one_that_an_adapter_can_have(rows_file: Path) -> None:
    rows_file.rename("train.csv")
    Path("adapters/train-adapter").mkdir(parents=True)
    assert run(["init", "train.csv", *STATED]) == 0
    assert parse("run.yaml").adapter.name == "train-adapter-2"


def test_a_folder_gives_the_name(rows_file: Path) -> None:
    Path("Ward Notes").mkdir()
    for number in range(20):
        Path(f"Ward Notes/{number}.txt").write_text(f"Note {number}: the wound heals well, day {number}.")
    assert run(["init", "Ward Notes", "--yes", "--access", "open"]) == 0
    assert parse("run.yaml").adapter.name == "ward-notes"


def test_columns_whose_names_say_nothing_are_asked_for(rows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file.write_text("ID,keywords,transcription\n1,cough,The man coughs at night for a week.\n")
    assert run(["init", "rows.csv", "--yes", "--access", "open"]) == 65
    message = capsys.readouterr().err
    assert "ID, keywords, transcription" in message and "--column text=transcription" in message


def test_rows_longer_than_the_base_takes_are_counted_and_not_shown(
    rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny("llama", rows_file.parent / "base", context=128, chat=False)
    rows = [(f"What is compound {n} for?", "Long. " * 40 if n % 10 == 0 else f"Value {n}.") for n in range(60)]
    rows_file.write_text("\n".join(json.dumps({"question": asked, "answer": reply}) for asked, reply in rows))
    rows_file.rename("rows.jsonl")
    capsys.readouterr()
    stated = ["--yes", "--access", "open", "--base", str(base), "--set", "data.near_duplicate_similarity=0"]
    assert run(["init", "rows.jsonl", *stated]) == 0
    shown = capsys.readouterr().out
    assert lines_of(shown, "context") == [
        # bos, "User: ", the question's 24, two line ends, "Assistant: ", 239 of "Long. " stripped, eos, two line ends
        "the base takes 128 tokens, and the longest row has 286: so not every row fits"
    ]
    assert "6 of 60 rows are longer" in shown and "Long. Long." not in shown
    assert "Assistant: Value" in shown  # the base has no chat template: lines of User: and Assistant:
    settings = parse("run.yaml")
    assert (settings.train.max_length, settings.train.too_long) == (128, "drop")
    assert run(["train", "--config", "run.yaml", "train.max_steps=1"]) == 0


def test_on_a_terminal_it_asks_for_the_encoding_and_the_group(rows_file: Path) -> None:
    rows_file.write_bytes(rows_file.read_text().replace("mrn", "drug").replace("value", "Ménière").encode("latin-1"))
    controller, terminal = pty.openpty()
    os.write(controller, b"\n\nopen\n\n")  # the likely encoding, no group, a class, the embedded base
    done = subprocess.run(
        [sys.executable, "-m", "lora_med", "init", "rows.csv", "--set", "data.near_duplicate_similarity=0"],
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=120,
    )
    os.close(terminal)
    os.close(controller)
    assert done.returncode == 0, done.stderr
    assert "its bytes look like Windows-1252" in done.stdout and "It lowers Ménière 0." in done.stdout
    settings = parse("run.yaml")
    assert (settings.data.encoding, settings.data.columns) == ("windows-1252", {"group": "none"})
