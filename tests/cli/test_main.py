"""The command line's table, its speed, and the exit codes of what goes wrong before any command runs."""

from __future__ import annotations

import ast
import importlib
import json
import logging
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_med import run as run_module
from lora_med.cli.main import COMMANDS, Root, run
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
    heavy = "[name in sys.modules for name in ('torch', 'pydantic', 'rich')]"
    code = f"import sys; from lora_med.cli.main import run; run([]); print(*{heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False False False")


def test_help_answers_in_under_300_ms() -> None:
    """In seconds of a processor, which other work on the machine hardly changes; `make bench` times it by the clock."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "lora_med", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.3


def test_an_unknown_command_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dcotor"]) == 2
    assert "did you mean 'doctor'?" in capsys.readouterr().err


def test_a_wrong_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--nonsense"]) == 2


def test_eval_names_its_subcommands_and_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--help"]) == 0
    page = capsys.readouterr().out
    assert "compare" in page and "harness" in page and "data.key=value" in page
    assert run(["eval", "comapre", "a", "b"]) == 2
    assert "did you mean 'compare'?" in capsys.readouterr().err
    assert run(["eval", "data.fold=1", "compare", "a", "b"]) == 2
    assert "must be the first word" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["config", "show", "--nonsense"], 2, "E002-usage"),
        (["merge", "--out", "x"], 2, "E002-usage"),
        (["dcotor"], 2, "E002-usage"),
        (["config", "show", "train.lr=1"], 2, "E002-settings"),
        (["config", "show", "--config", "nowhere.yaml"], 66, "E066-input-missing"),
    ],
)
def test_under_json_an_error_is_one_object(
    arguments: list[str], code: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--json"]) == code
    out, err = capsys.readouterr()
    error = json.loads(out)
    assert list(error) == ["code", "what", "where", "fix", "exit_code"]
    assert (error["code"], error["exit_code"]) == (name, code)
    assert err.startswith(f"error[{name}]: {error['what']}")


def leaves() -> Iterator[tuple[str, Any]]:
    """Every command that runs, by its path."""
    waiting = [(name, Root().get_command(None, name)) for name in COMMANDS]
    while waiting:
        path, command = waiting.pop()
        children = getattr(command, "commands", {})
        waiting += [(f"{path} {name}", child) for name, child in children.items()]
        if not children or command.invoke_without_command:
            yield path, command


def test_every_command_has_quiet_and_verbose() -> None:
    for path, command in leaves():
        flags = {flag for param in command.params for flag in param.opts}
        assert {"--quiet", "--verbose", "--debug"} <= flags, path


def test_an_option_of_several_commands_means_one_thing() -> None:
    shared = ("--base", "--store", "--revision", "--json", "--online", "--data", "--seed", "--config")
    texts: dict[str, set[str]] = {}
    for _, command in leaves():
        for param in command.params:
            for flag in set(param.opts) & set(shared):
                texts.setdefault(flag, set()).add(str(param.help).partition(" [default")[0])
    assert set(texts) == set(shared)
    assert {flag: len(found) for flag, found in texts.items()} == dict.fromkeys(shared, 1)


def test_quiet_logs_no_progress_and_verbose_logs_details(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("lora_med.test")
    spoken = {}
    for flag in ("--quiet", "--verbose"):
        run(["config", "schema", flag])
        capsys.readouterr()
        run_module.set_up_logging()  # as a run does when it starts
        logger.debug("detail")
        logger.info("progress")
        logger.warning("warning")
        spoken[flag] = capsys.readouterr().err.split()
    run(["config", "schema"])
    assert spoken == {"--quiet": ["warning"], "--verbose": ["detail", "progress", "warning"]}


def test_names_are_not_cut_in_a_pipe() -> None:
    code = [sys.executable, "-m", "lora_med", "data", "list"]
    lines = subprocess.run(code, capture_output=True, text=True, check=True).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("clinicaltrials ")]
    assert "ClinicalTrials.gov" in line


def test_no_message_names_what_only_a_clone_has() -> None:
    package = Path(run_module.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for hint in ("make quickstart", "make setup", "recipes/sft", "pip install -e", "lora_med/assets/"):
                    assert hint not in node.value or "\n" in node.value, f"{path}:{node.lineno}: {hint}"


def test_generate_asks_for_an_adapter_or_a_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "--prompt", "x"]) == 2
    assert "neither --adapter nor --base is given" in capsys.readouterr().err


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
    named = ("Adapter", "Data", "Evaluate", "Lora", "Mix", "Model", "Privacy", "Train")
    assert sections == [f"{name}Settings" for name in named]
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
    assert found["gguf"]["value"] and not found["gguf"]["fix"], "a package that only GGUF files need"


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
