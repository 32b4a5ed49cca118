"""Files that may not be read, no home, no working directory, no reader: an exit code of the table, never 70."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_med.adapters.foreign.import_peft import Origin, adopt
from tests.adapters.test_adopt_tools import trained
from tests.tiny import make_tiny

CAPABILITY_SET_DROP, READ_ALL = 24, (1, 2)  # prctl's name, and what lets root read every file


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "llama"
    make_tiny("llama", folder)
    trained(folder, folder.parent / "theirs")
    adopt(
        folder.parent / "theirs",
        base=str(folder),
        name="good",
        store=folder.parent / "store",
        origin=Origin(access="open"),
    )
    return folder


def as_a_user() -> None:
    """Root without its right to read every file is an owner like any other."""
    if os.geteuid() == 0:
        for capability in READ_ALL:
            ctypes.CDLL(None).prctl(CAPABILITY_SET_DROP, capability, 0, 0, 0)


def lora_med(*arguments: str, before: Callable[[], None] = as_a_user, **environment: str) -> tuple[int, str, str]:
    values = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "lora_med", *arguments],
        capture_output=True,
        text=True,
        env={key: value for key, value in values.items() if value != "unset"},
        preexec_fn=before,
        timeout=240,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def copied(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(base.parent / "store", tmp_path / "store")
    return tmp_path


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "."])
def test_a_base_that_may_not_be_read_is_named(file: str, copied: Path) -> None:
    (copied / "base" / file).chmod(0)
    code, _, errors = lora_med("generate", "--base", str(copied / "base"), "--prompt", "x")
    (copied / "base" / file).chmod(0o755)
    assert code == 66, errors
    assert str(copied / "base" / file).removesuffix("/.") in errors


@pytest.mark.parametrize("file", ["card.json", "adapter_model.safetensors", "adapter_config.json", "."])
def test_an_adapter_that_may_not_be_read_is_named(file: str, copied: Path) -> None:
    (copied / "store/good" / file).chmod(0)
    options = ["--store", str(copied / "store"), "--base", str(copied / "base")]
    code, _, errors = lora_med("generate", "--adapter", "good", *options, "--prompt", "x")
    (copied / "store/good" / file).chmod(0o755)
    assert code == 66, errors
    assert str(copied / "store/good") in errors


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer_config.json"])
def test_a_folder_in_the_place_of_a_file_is_no_bug(file: str, copied: Path) -> None:
    (copied / "base" / file).unlink()
    (copied / "base" / file).mkdir()
    code, _, errors = lora_med("generate", "--base", str(copied / "base"), "--prompt", "x")
    assert code in (66, 76), errors


def test_the_list_names_what_it_cannot_read(copied: Path) -> None:
    for name in ("locked", "closed", "folder"):
        shutil.copytree(copied / "store/good", copied / "store" / name)
    (copied / "store/locked/card.json").chmod(0)
    (copied / "store/closed").chmod(0)
    (copied / "store/folder/card.json").unlink()
    (copied / "store/folder/card.json").mkdir()
    code, printed, errors = lora_med("adapters", "list", "--store", str(copied / "store"), "--json")
    (copied / "store/closed").chmod(0o755)
    rows = {row["name"]: row.get("error") for row in json.loads(printed)["adapters"]}
    assert code == 0, errors
    assert rows["good"] is None
    assert "Permission denied" in rows["locked"] and "Permission denied" in rows["closed"]
    assert rows["folder"]


def test_an_adapter_made_elsewhere_that_may_not_be_read_is_named(base: Path, tmp_path: Path) -> None:
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copytree(base.parent / "theirs", tmp_path / file)
        (tmp_path / file / file).chmod(0)
        code, _, errors = lora_med("adapters", "adopt", str(tmp_path / file), "--base", str(base), "--name", "x")
        assert code == 66 and str(tmp_path / file / file) in errors, errors


COMMANDS = [["data", "list"], ["adapters", "list"]]
SLOW = [
    ["config", "list"],
    ["doctor"],
    ["--help"],
    ["config", "show", "--config", "quickstart_pubmed"],
    ["config", "schema"],
]
CASES = [*COMMANDS, *(pytest.param(command, marks=pytest.mark.slow) for command in SLOW)]


def close_stdout() -> None:
    os.close(1)


def delete_working_directory(tmp_path: Path) -> Callable[[], None]:
    def go() -> None:
        os.chdir(tmp_path)
        tmp_path.rmdir()

    return go


@pytest.mark.parametrize("command", CASES, ids=" ".join)
def test_no_command_is_a_bug_without_a_stdout_a_home_or_a_folder(command: list[str], tmp_path: Path) -> None:
    assert lora_med(*command, before=close_stdout)[0] == 0
    assert lora_med(*command, HOME="unset", XDG_CACHE_HOME="unset")[0] == 0
    assert lora_med(*command, XDG_CACHE_HOME="/proc/none", HOME="/proc/none")[0] == 0
    (tmp_path / "gone").mkdir()
    code, _, errors = lora_med(*command, before=delete_working_directory(tmp_path / "gone"))
    assert code in (0, 66), errors


@pytest.mark.parametrize("command", CASES, ids=" ".join)
def test_a_reader_that_leaves_ends_a_command_quietly(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "lora_med", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert "BrokenPipe" not in errors and "Exception" not in errors


def test_a_cache_that_cannot_be_written_costs_only_time(base: Path) -> None:
    options = ["--base", str(base), "--prompt", "x", "--max-new-tokens", "2"]
    for place in ("/proc/none", "/dev/null"):
        code, _, errors = lora_med("generate", *options, XDG_CACHE_HOME=place, HOME=place)
        assert code == 0, errors


RECIPE = Path(__file__).parents[2] / "recipes/sft_pubmed.py"


@pytest.mark.parametrize("program", [["-m", "lora_med", "train"], [str(RECIPE)]], ids=["command", "recipe"])
def test_training_in_a_deleted_folder_ends_before_torch_loads(program: list[str], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, *program, "--config", "quickstart_pubmed"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(RECIPE.parents[1])},
        preexec_fn=delete_working_directory(tmp_path / "gone"),
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (66, "")
    assert "the working directory was deleted" in done.stderr


@pytest.mark.slow
def test_a_whole_run_needs_no_home_and_no_stdout(tmp_path: Path) -> None:
    store, here = str(tmp_path / "store"), {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}
    settings = [f"train.output_dir={tmp_path}/run", f"adapter.store={store}", "adapter.name=a", "train.max_steps=1"]
    commands = [
        ["train", "--config", "quickstart_pubmed", *settings],
        ["merge", "a", "--store", store, "--base", "micro", "--out", str(tmp_path / "merged")],
        ["export", "vllm", "a", "--store", store, "--out", str(tmp_path / "vllm")],
        ["generate", "--adapter", "a", "--store", store, "--prompt", "x", "--max-new-tokens", "2"],
    ]
    for command in commands:
        code, _, errors = lora_med(*command, before=close_stdout, **here)
        assert code == 0, errors
