"""The command line's table, its speed, and the exit codes of what goes wrong before any command runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from lora_med.cli.main import COMMANDS, run
from lora_med.cli.recipe import run_recipe
from lora_med.config.schema import Settings


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert name in capsys.readouterr().out


def test_help_lists_every_command_and_loads_no_command_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    page = capsys.readouterr().out
    assert all(name in page for name in COMMANDS)
    heavy = "[name in sys.modules for name in ('typer', 'pydantic')]"
    code = f"import sys; from lora_med.cli.main import run; run([]); print(*{heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False False")


def test_help_answers_in_under_300_ms() -> None:
    def once() -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lora_med", "--help"], capture_output=True, check=True)
        return time.perf_counter() - begun

    assert min(once() for _ in range(5)) < 0.3


def test_an_unknown_command_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dcotor"]) == 2
    assert "did you mean 'doctor'?" in capsys.readouterr().err


def test_a_wrong_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--nonsense"]) == 2


def test_a_missing_settings_file_is_exit_66(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--config", "nowhere.yaml"]) == 66
    assert capsys.readouterr().err.startswith("error[E066-input-missing]:")


def test_a_bug_is_exit_70_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "broken", ("lora_med.errors", "a module without an app"))
    assert run(["broken"]) == 70
    message = capsys.readouterr().err
    assert "AttributeError" in message and "Traceback" not in message
    assert run(["broken", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_config_show_resolves_overrides_as_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--json", "train.learning_rate=1e-3"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["train"]["learning_rate"] == 1e-3
    assert Settings.model_validate(shown).lora.r == 16


def test_config_schema_describes_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    sections = [name for name in schema["$defs"] if name.endswith("Settings")]
    assert len(sections) == 7
    bare = [
        f"{name}.{key}"
        for name in sections
        for key, field in schema["$defs"][name]["properties"].items()
        if not field.get("description")
    ]
    assert bare == []


def test_doctor_reports_each_package_and_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module("lora_med.cli.doctor_command").app is not None
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    found = {row["what"]: row for row in report["findings"]}
    assert {"python", "torch", "trl", "device", "dtype", "4-bit and 8-bit", "free disk", "network"} <= set(found)
    assert found["dtype"]["why"]


def test_a_recipes_bug_is_exit_70_and_shows_no_text_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> Callable[[Settings], None]:
        def main(settings: Settings) -> None:
            raise error

        return main

    told = {}
    for error in (ValueError("could not convert: Mrs. Roe has a cough"), KeyboardInterrupt()):
        with pytest.raises(SystemExit) as ended:
            run_recipe(fail(error), doc=None, arguments=[])
        told[ended.value.code] = capsys.readouterr().err
    assert set(told) == {70, 75}
    assert "Roe" not in told[70] and "Traceback" not in told[70]
    assert "ValueError" in told[70] and "test_main.py" in told[70]
    assert "interrupted" in told[75]
