"""lora-med train --processes: the options that go together, and the exit code and last lines of a launch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_med.cli.main import run
from lora_med.errors import InputMissingError, LoraMedError, StoppedError
from lora_med.processes import elastic, failures
from lora_med.processes.launch import Place, named
from tests.processes.machines import free_port, settings
from tests.tiny import make_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "processes"),
        (["--machines", "2"], "nothing says where they meet"),
        (["--machines", "2", "--machine-rank", "2", "--join", "a:1"], "with --machines 2 it is 0 to 1"),
        (["--join", "node0:29500"], "--join is for several machines"),
        (["--machines", "2", "--join", "node0"], "it is HOST:PORT"),
        (["--machines", "2", "--join", "node0:70000"], "it is HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_launch_inside_a_launch_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert run(["train", "--processes", "2"]) == 2
    assert "a launcher has started this process already" in capsys.readouterr().err


def test_a_wrong_setting_is_found_before_anything_is_launched(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--processes", "2", "train.lerning_rate=1"]) == 2
    assert "did you mean `train.learning_rate`?" in capsys.readouterr().err


def test_the_error_of_the_process_that_failed_first_is_the_launchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, error in enumerate([StoppedError("process 1 on alpha is gone"), InputMissingError("no such file")]):
        folder = tmp_path / "attempt_0" / str(number)
        folder.mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "error.json"))
        monkeypatch.setenv(failures.OWN_LAUNCHER, str(os.getppid()))
        assert failures.leave_word(error)
        time.sleep(0.01)
    with pytest.raises(StoppedError, match="process 1 on alpha is gone"):
        elastic.raise_first(tmp_path)
    word = json.loads((tmp_path / "attempt_0" / "1" / "error.json").read_text())
    assert "no such file" in word["message"]["message"]  # where torchrun and accelerate look for it
    monkeypatch.setenv(failures.OWN_LAUNCHER, "1")  # a launcher that is gone prints nothing
    assert not failures.leave_word(LoraMedError("x"))


def test_processes_are_named_by_machine() -> None:
    places = [Place(number, "alpha" if number < 5 else "beta", "", 0) for number in range(6)]
    assert named(places) == "processes 0, 1, 2 and 2 more on alpha and process 5 on beta"


def command(base: Path, folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "lora_med", "train", *options, *settings(base, folder)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_a_launch_ends_as_the_process_that_failed_and_prints_its_message_last(base: Path, tmp_path: Path) -> None:
    failing = [*command(base, tmp_path, "--processes", "2"), "data.paths=[/nowhere.json]"]
    done = subprocess.run(failing, capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.returncode == 66
    assert done.stderr.rstrip().splitlines()[-3] == "error[E066-input-missing]: nothing matches '/nowhere.json'"
    assert done.stderr.count("E066") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launch_commits_a_checkpoint(base: Path, tmp_path: Path, what: signal.Signals) -> None:
    endless = [*command(base, tmp_path, "--processes", "2"), "train.max_steps=4000"]
    launch = subprocess.Popen(endless, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
    assert launch.stderr is not None
    for line in launch.stderr:
        if line.startswith("step 2 of"):
            break
    launch.send_signal(what)
    said = launch.stderr.read()
    assert launch.wait() == 75
    assert "stopped on request at step" in "".join(said.splitlines(keepends=True)[-3:])
    assert len(list((tmp_path / "run").glob("checkpoint-*/COMMIT.json"))) == 1


@pytest.mark.slow
def test_two_launches_join_by_an_address(base: Path, tmp_path: Path) -> None:
    where = f"127.0.0.1:{free_port()}"
    launches = [
        subprocess.Popen(
            [*command(base, tmp_path / number, "--machines", "2", "--machine-rank", number, "--join", where)],
            env=environment(),
            cwd=ROOT,
        )
        for number in ("0", "1")
    ]
    assert [launch.wait() for launch in launches] == [0, 0]
    assert (tmp_path / "0" / "adapters" / "mine" / "card.json").exists()
    assert not (tmp_path / "1" / "adapters").exists()


@pytest.mark.slow
def test_a_restarted_launch_goes_on_by_itself_bit_identical(base: Path, tmp_path: Path) -> None:
    adapters = []
    for name in ("whole", "killed"):
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--max_restarts=2"]
        launcher += [f"--config_file={ROOT / 'recipes/accelerate/cpu.yaml'}", str(ROOT / "recipes" / "sft_task.py")]
        arguments = [*settings(base, tmp_path / name), "train.max_steps=9"]
        launch = subprocess.Popen(
            [*launcher, *arguments], stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
        )
        assert launch.stderr is not None
        said = []
        for line in launch.stderr:
            said.append(line)
            if name == "killed" and line.startswith("step 5 of") and "continuing" not in "".join(said):
                children = Path(f"/proc/{launch.pid}/task/{launch.pid}/children").read_text().split()
                os.kill(int(children[-1]), signal.SIGKILL)
        assert launch.wait() == 0, "".join(said)
        assert ("continuing from step 3" in "".join(said)) is (name == "killed")
        adapters.append((tmp_path / name / "adapters" / "mine" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]
