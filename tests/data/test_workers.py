"""Several processes give the results of one: the same order, the same errors, and none of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lora_med.data.scanning import workers
from lora_med.data.scanning.workers import in_order
from lora_med.errors import DataError

SCRIPT = """
from lora_med.data.scanning.workers import in_order
from tests.data.test_workers import square
print(list(in_order(square, range(5), 2)))
"""
INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in its background jobs
from lora_med.data.scanning.workers import in_order
from tests.data.test_workers import slow
for number in in_order(slow, range(1000), 2):
    print(number, flush=True)
"""


def square(number: int) -> tuple[int, int]:
    if number == 7:
        raise DataError("seven", where="a:7", fix="leave it out")
    time.sleep(0.05 if number % 2 else 0)
    return number * number, os.getpid()


def dies(number: int) -> tuple[int, int]:
    if number == 2 and os.getpid() != int(os.environ["PARENT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return number, os.getpid()


def slow(number: int) -> int:
    time.sleep(0.1)
    return number


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.is_running()]


def test_results_come_in_order_from_other_processes() -> None:
    results = list(in_order(square, range(7), 3))
    assert [number for number, _ in results] == [number * number for number in range(7)]
    others = {process for _, process in results}
    assert os.getpid() not in others and len(others) > 1
    assert children() == []
    assert {process for _, process in in_order(square, range(7), 1)} == {os.getpid()}
    assert list(in_order(square, [], 3)) == []


def test_an_error_comes_where_its_result_would_and_is_complete() -> None:
    for processes in (1, 3):
        results: list[int] = []
        with pytest.raises(DataError) as caught:
            results.extend(number for number, _ in in_order(square, range(20), processes))
        assert (caught.value.what, caught.value.where, caught.value.fix) == ("seven", "a:7", "leave it out")
        assert results == [number * number for number in range(7)]
    assert children() == []


def test_an_iteration_that_ends_early_leaves_no_process() -> None:
    results = in_order(slow, range(1000), 2)
    assert next(results) == 0 and len(children()) == 2
    results.close()  # type: ignore[attr-defined]
    assert children() == []


def test_a_worker_is_replaced_after_some_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MOST_JOBS", 2)
    results = list(in_order(square, range(7), 2))
    assert [number for number, _ in results] == [number * number for number in range(7)]
    processes = [process for _, process in results]
    assert max(processes.count(process) for process in processes) <= 2 and len(set(processes)) >= 4
    assert children() == []


def test_the_job_of_a_process_that_died_is_done_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PARENT", str(os.getpid()))
    results = list(in_order(dies, range(6), 2))
    assert [number for number, _ in results] == list(range(6))
    assert results[2][1] == os.getpid()
    assert "this process does its work" in caplog.text


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.count("(16, ") == 1 and not result.stderr


def test_ctrl_c_ends_all_processes() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "0\n"
    started = psutil.Process(process.pid).children()
    assert len(started) == 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]
    assert not any(worker.is_running() for worker in started)
