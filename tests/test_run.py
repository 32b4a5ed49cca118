"""run.json is there from the first moment and says how the run ended; one run at a time holds a folder."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lora_med import run as run_module
from lora_med.errors import DivergedError, OutputError, StoppedError
from lora_med.run import OWN_WAITING, git_commit, host, prepare_environment, start_run, versions

SETTINGS = {"train": {"seed": 5}}


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_run_json_says_running_then_finished(tmp_path: Path) -> None:
    with start_run(tmp_path / "a" / "run", settings=SETTINGS, seed=5, command=["sft.py", "--config", "x"]) as run:
        begun = facts(run.output_dir)
        assert begun["status"] == "running"
        run.record(data={"train": 12})
        assert facts(run.output_dir)["data"] == {"train": 12}
    ended = facts(run.output_dir)
    assert ended["status"] == "finished"
    assert ended["seconds"] >= 0
    assert ended["data"] == {"train": 12}
    assert (ended["settings"], ended["seed"], ended["command"]) == (SETTINGS, 5, ["sft.py", "--config", "x"])
    assert ended["processes"] == 1
    assert {"python", "torch", "transformers", "peft"} <= set(ended["versions"])
    assert ended["host"]["cores"] == os.cpu_count()
    assert time.strptime(ended["started"], "%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("error", "status", "named"),
    [
        (DivergedError("loss is nan"), "failed", "E078-diverged"),
        (ValueError("the patient's name"), "failed", "ValueError"),
        (SystemExit(3), "failed", "SystemExit"),
        (StoppedError("stopped"), "stopped", "E075-stopped"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
    ],
)
def test_a_run_that_fails_or_stops_says_so_without_any_text(
    tmp_path: Path, error: BaseException, status: str, named: str
) -> None:
    with pytest.raises(type(error)) as caught, start_run(tmp_path, settings=SETTINGS, seed=1):
        raise error
    assert caught.value is error
    assert (facts(tmp_path)["status"], facts(tmp_path)["error"]) == (status, named)
    assert "patient" not in (tmp_path / "run.json").read_text()


def test_a_run_can_begin_again_after_it_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), start_run(tmp_path, settings=SETTINGS, seed=1):
        raise RuntimeError
    with start_run(tmp_path, settings=SETTINGS, seed=1):
        assert "error" not in facts(tmp_path)
    assert facts(tmp_path)["status"] == "finished"


def test_a_second_run_in_the_same_folder_is_refused_and_leaves_run_json_alone(tmp_path: Path) -> None:
    with start_run(tmp_path, settings=SETTINGS, seed=1):
        before = (tmp_path / "run.json").read_bytes()
        with pytest.raises(OutputError, match=f"process {os.getpid()}"), start_run(tmp_path, settings={}, seed=2):
            pass
        assert (tmp_path / "run.json").read_bytes() == before
    with start_run(tmp_path, settings=SETTINGS, seed=1):
        pass


RUNNER = """
import sys, time
from lora_med.run import start_run
with start_run(sys.argv[1], settings={}, seed=1):
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_leaves_running_and_frees_the_folder(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "begun\n"
    with pytest.raises(OutputError, match=f"process {child.pid}"), start_run(tmp_path, settings={}, seed=1):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert facts(tmp_path)["status"] == "running"
    with start_run(tmp_path, settings={}, seed=1):
        pass


def test_an_end_that_cannot_be_written_does_not_hide_the_error(tmp_path: Path) -> None:
    with pytest.raises(DivergedError), start_run(tmp_path / "run", settings={}, seed=1) as run:
        (run.output_dir / "run.json").unlink()
        (run.output_dir / "run.json").mkdir()
        raise DivergedError("loss is nan")


def test_the_seed_decides_python_s_random_numbers(tmp_path: Path) -> None:
    drawn = []
    for seed in (3, 3, 4):
        with start_run(tmp_path, settings={}, seed=seed):
            drawn.append(random.random())
    assert drawn[0] == drawn[1] == random.Random(3).random() != drawn[2]


def test_other_processes_of_a_launch_neither_lock_nor_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_run(tmp_path, settings={"of": "rank 0"}, seed=1):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with start_run(tmp_path, settings={"of": "rank 1"}, seed=1) as second:
            second.record(loss=1.0)
            assert logging.getLogger().level == logging.ERROR
        monkeypatch.delenv("RANK")
    assert facts(tmp_path)["settings"] == {"of": "rank 0"}
    assert "loss" not in facts(tmp_path)


def test_the_environment_is_set_before_libraries_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "unset")  # so that the test's end restores it
        monkeypatch.delenv(name)
    prepare_environment(offline=False)
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "1"
    assert "HF_HUB_OFFLINE" not in os.environ
    prepare_environment(offline=True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


WAITING = """
import os, sys
from lora_med.run import prepare_environment
prepare_environment(offline=True)
import torch
"""


@pytest.mark.parametrize(
    ("own", "spins"), [({}, "300"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")]
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(own: dict[str, str], spins: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in OWN_WAITING}
    shown = subprocess.run(
        [sys.executable, "-c", WAITING],
        env=environment | own | {"OMP_DISPLAY_ENV": "VERBOSE"},  # libgomp prints what it took when torch loads it
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("this torch does not use GNU's OpenMP")
    assert f"GOMP_SPINCOUNT = '{spins}'" in shown


def test_garbage_is_looked_for_less_often_but_still_looked_for() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        prepare_environment(offline=True)
        assert gc.isenabled()
        assert gc.get_threshold()[0] >= 50_000
    finally:
        gc.set_threshold(*before)


def test_the_commit_is_that_of_the_folder_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert git_commit() == {"commit": commit, "changed": False}
    (tmp_path / "new").touch()
    assert git_commit() == {"commit": commit, "changed": True}


def test_no_fact_reveals_the_machine_s_user_or_paths(tmp_path: Path) -> None:
    told = json.dumps([host(), versions()])
    assert str(Path.home()) not in told and str(tmp_path) not in told
    assert os.uname().nodename not in json.dumps(host())


def test_logging_speaks_on_stderr_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_module.set_up_logging()
    logging.getLogger("lora_med.test").info("hello")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "hello\n")
