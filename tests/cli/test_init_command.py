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
