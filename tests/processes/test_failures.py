"""A process that fails, is killed or hangs: what the others say, with which code they end, and how soon."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lora_med.errors import DataError, LoraMedError, PreflightError, StoppedError
from lora_med.processes import failures, peers, progress
from lora_med.processes.launch import Place
from lora_med.processes.progress import Heard, Progress, waiting_for
from tests.processes.machines import Machines, start
from tests.tiny import make_tiny

TEN_SECONDS = 10.0
ENDLESS = "train.max_steps=4000"
PLACES = {0: Place(0, "alpha", "alpha/0", 0), 1: Place(1, "beta", "beta/1", 0)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


def in_its_steps(machines: Machines) -> None:
    """Wait until a step after the first checkpoint is taken."""
    machines.until(lambda: "step 4 of" in machines[0].said)


def keepers() -> set[str]:
    """The process ids of the keepers on this machine."""
    lines = os.popen("ps -eo pid,args").read().splitlines()
    return {line.split()[0] for line in lines if "tells the others if process" in line}


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ("data.paths=[/nowhere.json]", 66, "nothing matches '/nowhere.json'"),
        ("train.lerning_rate=1", 2, "did you mean `train.learning_rate`?"),
    ],
    ids=["a file that is missing", "a key that is unknown"],
)
def test_a_failure_on_one_machine_ends_both_with_its_message_and_code(
    base: Path, tmp_path: Path, failing: int, setting: str, code: int, message: str
) -> None:
    own: list[list[str]] = [[], []]
    own[failing] = [setting]
    began = time.monotonic()
    machines = start(base, tmp_path, own=own)
    assert machines.wait() == [code, code]
    assert max(machine.ended for machine in machines.every) - began < TEN_SECONDS
    assert abs(machines[0].ended - machines[1].ended) < TEN_SECONDS
    assert all(message in machine.said for machine in machines.every)
    assert f"where: process {failing} on " in machines[1 - failing].said


@pytest.mark.slow
def test_a_bug_in_one_process_is_told_without_its_text(base: Path, tmp_path: Path) -> None:
    def broken(number: int) -> None:
        if number:
            from lora_med.training.run.callbacks import ProcessMarks

            def on_step_end(*_: Any, **__: Any) -> None:
                raise ValueError("John Smith, born 1951")

            ProcessMarks.on_step_end = on_step_end  # type: ignore[method-assign]

    machines = start(base, tmp_path, ENDLESS, before=broken)
    assert machines.wait() == [70, 70]
    assert "a bug in lora_med: ValueError" in machines[0].said
    assert "John" not in machines[0].said + machines[1].said


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_others_with_75_and_the_checkpoint_that_is_whole(
    base: Path, tmp_path: Path, killed: int
) -> None:
    machines = start(base, tmp_path, ENDLESS)
    in_its_steps(machines)
    moment = machines.signal(killed, signal.SIGKILL)
    left = machines[1 - killed]
    assert machines.wait(1 - killed) == [75]
    assert left.ended - moment < TEN_SECONDS
    machines.wait()
    last = left.said.rpartition("error[")[2]
    assert last.startswith(f"E075-stopped]: process {killed} on ")
    assert "is gone after step" in last
    assert "checkpoint-" in last
    assert "the same command goes on" in last
    assert "RuntimeError" not in last


@pytest.mark.slow
def test_a_process_killed_before_the_first_step_is_missed_too(base: Path, tmp_path: Path) -> None:
    def slow(number: int) -> None:
        if number == 0:
            import lora_med.workflows.train as workflow

            def reading(*_: Any, **__: Any) -> Any:
                (tmp_path / "reading").touch()
                time.sleep(60)

            workflow.open_once = reading

    machines = start(base, tmp_path, before=slow)
    machines.until((tmp_path / "reading").exists)
    moment = machines.signal(1, signal.SIGKILL)
    assert machines.wait() == [75, -9]
    assert machines[0].ended - moment < TEN_SECONDS
    assert "is gone before the first step; there is no checkpoint yet" in machines[0].said
    assert machines[0].status() == "stopped"


def test_sigterm_to_one_machine_stops_both_with_a_committed_checkpoint(base: Path, tmp_path: Path) -> None:
    machines = start(base, tmp_path, ENDLESS)
    in_its_steps(machines)
    machines.signal(1, signal.SIGTERM)
    assert machines.wait() == [75, 75]
    newest = max(machines[0].run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert (newest / "COMMIT.json").exists()
    assert f"stopped on request at step {newest.name.rpartition('-')[2]}" in machines[0].said


def shorter_waits(number: int) -> None:
    """Half a minute as two seconds, in the forked process of a test."""
    progress.SAY_AFTER = peers.SAY_AFTER = 2.0


@pytest.mark.slow
def test_a_hanging_process_is_named_and_goes_on_when_it_wakes(base: Path, tmp_path: Path) -> None:
    machines = start(base, tmp_path, "train.max_steps=8", before=shorter_waits)
    in_its_steps(machines)
    machines.signal(1, signal.SIGSTOP)
    machines.until(lambda: "waiting for process 1 on " in machines[0].said)
    assert re.search(r"waiting for process 1 on \S+, which .+, since \d\d:\d\d:\d\d", machines[0].said)
    machines.signal(1, signal.SIGCONT)
    assert machines.wait() == [0, 0], machines[0].said


@pytest.mark.slow
@pytest.mark.parametrize("hanging", [0, 1])
def test_the_patience_for_a_hanging_process_ends_with_75(base: Path, tmp_path: Path, hanging: int) -> None:
    machines = start(base, tmp_path, ENDLESS, "train.peer_timeout=10", before=shorter_waits)
    in_its_steps(machines)
    moment = machines.signal(hanging, signal.SIGSTOP)
    left = machines[1 - hanging]
    assert machines.wait(1 - hanging) == [75]
    assert 9 < left.ended - moment < 10 + TEN_SECONDS
    assert f"s for process {hanging} on " in left.said
    assert "train.peer_timeout" in left.said
    machines.signal(hanging, signal.SIGCONT)
    assert machines.wait() == [75, 75]


@pytest.mark.slow
def test_a_process_that_prepares_its_data_is_waited_for(base: Path, tmp_path: Path) -> None:
    """Longer than train.peer_timeout, and the log says so after 2, 4, 8 and 16 seconds."""
    go_on = tmp_path / "go on"

    def slow(number: int) -> None:
        shorter_waits(number)
        if number:
            import lora_med.workflows.train as workflow

            reading = workflow.open_once

            def slowly(*arguments: Any, **options: Any) -> Any:
                while not go_on.exists():
                    time.sleep(0.1)
                return reading(*arguments, **options)

            workflow.open_once = slowly

    machines = start(base, tmp_path, "train.max_steps=1", "train.peer_timeout=10", before=slow)
    machines.until(lambda: machines[0].said.count("which is reading its data, since ") == 4)
    go_on.touch()
    assert machines.wait() == [0, 0], machines[0].said


def test_a_machine_that_never_starts_is_waited_for_and_then_given_up(base: Path, tmp_path: Path) -> None:
    def leave(number: int) -> None:
        if number:
            os._exit(0)

    machines = start(base, tmp_path, "train.peer_timeout=3", before=leave)
    assert machines.wait() == [75, 0]
    assert "s for process 1 to start" in machines[0].said


@pytest.mark.slow
def test_nothing_is_left_running(base: Path, tmp_path: Path) -> None:
    before = keepers()
    machines = start(base, tmp_path, "train.max_steps=1")
    machines.until(lambda: len(keepers() - before) == 2)
    assert machines.wait() == [0, 0]
    assert not keepers() - before


def test_a_single_process_has_neither_threads_nor_a_keeper(base: Path, tmp_path: Path) -> None:
    import threading

    from lora_med.processes.together import together

    before = threading.active_count()
    with together(tmp_path, patience=1) as joined:
        assert joined is None
        assert threading.active_count() == before


def test_what_remains_is_said_as_far_as_it_is_known() -> None:
    assert (
        failures.reached(Progress())
        == "before the first step; there is no checkpoint yet; the same command starts again"
    )
    whole = Progress(step=7, checkpoint="checkpoint-6")
    assert failures.reached(whole) == "after step 7; checkpoint-6 is whole; the same command goes on"
    writing = Progress(step=9, checkpoint="checkpoint-6", writing="checkpoint-9")
    assert "after step 9, while checkpoint-9 was written" in failures.reached(writing)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:7"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_a_lost_connection_is_told_from_a_bug(error: Exception, expected: bool) -> None:
    assert failures.is_broken_connection(error) is expected


def test_an_error_keeps_its_class_and_code_between_processes() -> None:
    error = PreflightError("0 rows", where="the training split", fix="more rows")
    other = failures.decode(failures.encode(error, PLACES[1]))
    assert type(other) is PreflightError
    assert (other.what, other.where, other.fix) == ("0 rows", "process 1 on beta: the training split", "more rows")
    assert failures.culprit(failures.encode(DataError("bad"), PLACES[1])) == (PLACES[1], False)
    assert failures.culprit(failures.encode_gone(PLACES[0])) == (PLACES[0], True)


def test_an_unexpected_exception_is_a_bug_and_ctrl_c_a_stop() -> None:
    assert type(failures.as_error(ZeroDivisionError("secret"))) is LoraMedError
    assert "secret" not in str(failures.as_error(ZeroDivisionError("secret")))
    assert type(failures.as_error(KeyboardInterrupt())) is StoppedError


@pytest.mark.parametrize(
    ("marks", "busy", "heard_ago", "stuck", "expected"),
    [
        (5, False, 1, 60, None),  # both in one step, which takes long
        (4, False, 1, 60, ("which is in step 3", True)),
        (4, True, 1, 60, ("which is in step 3", False)),
        (4, False, 1, 20, None),
        (5, False, 45, 60, ("which no longer reports", True)),
    ],
    ids=["in the same step", "behind", "behind and busy", "not for long", "silent"],
)
def test_for_whom_a_process_waits(
    marks: int, busy: bool, heard_ago: float, stuck: float, expected: tuple[str, bool] | None
) -> None:
    own = Progress(5, "in step 4", busy=False)
    report = Heard("", 1000 - heard_ago, Progress(marks, "in step 3", busy))
    waits = waiting_for(own, 1000 - stuck, {1: report}, PLACES, 1000)
    assert [(wait.reason, wait.may_end) for wait in waits] == ([expected] if expected else [])
    assert waiting_for(Progress(5, "reading", busy=True), 1000 - stuck, {1: report}, PLACES, 1000) == []
