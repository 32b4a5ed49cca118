"""`lora-med eval` as it is started: several processes write the report of one, and what ends one ends all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from lora_med.cli.command_groups import given_again, with_common_options
from lora_med.cli.eval.eval_command import app

METRICS = """
import os, signal

def deadly(predictions, references):
    os.kill(os.getpid(), signal.SIGKILL)

def exact(predictions, references):
    return {"exact": sum(map(str.__eq__, predictions, references)) / len(predictions)}
"""
EVAL = ("eval", "--base", "micro", "--task", "general", "--max-items", "60", "--bootstrap-samples", "50")


def run(folder: Path, launcher: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path.cwd()}:{folder}"}
    return subprocess.run(
        [sys.executable, *launcher, "-m", "lora_med", *EVAL, *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def report(out: Path) -> str:
    """Report and items without times."""
    content = re.sub(r'"(seconds|created)": ("[^"]*"|[0-9.]+)', r'"\1": 0', (out / "report.json").read_text())
    return content + (out / "items.jsonl").read_text()


def test_each_process_gets_the_options_that_were_given() -> None:
    words = [
        "--task",
        "general",
        "--task",
        "medqa:a b.json",
        "--rotate",
        "--json",
        "--out",
        "x",
        "data.fold=1",
        "--debug",
    ]
    command = with_common_options(get_command(app))
    with command.make_context("eval", [*words, "--processes", "2"]) as context:
        again = given_again(context, but="processes")
    with command.make_context("eval", list(again)) as second:
        assert second.params == {**context.params, "processes": 1}
        assert second.args == ["data.fold=1"]
    assert "--debug" in again
    assert "--processes" not in again
    assert "--seed" not in again, "what was not given keeps its default"


@pytest.mark.slow
def test_two_processes_write_the_report_of_one_and_go_on_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "own_metrics.py").write_text(METRICS)
    metric = ("--metric", "own_metrics:exact")
    assert run(tmp_path, [], "--out", "one", *metric).returncode == 0
    ended = run(tmp_path, [], "--out", "two", "--processes", "2", "--metric", "own_metrics:deadly")
    assert ended.returncode == 75
    assert "process 0 on" in ended.stderr
    assert "during the evaluation; the same command goes on from what is scored" in ended.stderr
    assert (tmp_path / "two" / "scored_batches_0.jsonl").stat().st_mode & 0o777 == 0o600
    ended = run(tmp_path, [], "--out", "two", "--processes", "2", *metric)
    assert ended.returncode == 0, ended.stderr
    assert "are scored already" in ended.stderr
    assert ended.stdout.count("the report: ") == 1, "one process prints"
    assert report(tmp_path / "two") == report(tmp_path / "one")
    assert not list((tmp_path / "two").glob("scored_batches_*"))


@pytest.mark.slow
def test_processes_of_accelerate_write_the_report_of_one(tmp_path: Path) -> None:
    assert run(tmp_path, [], "--out", "one").returncode == 0
    launcher = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
    ended = run(tmp_path, launcher, "--out", "two")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("the report: ") == 1
    assert report(tmp_path / "two") == report(tmp_path / "one")


@pytest.mark.slow
def test_a_failure_in_one_process_ends_all_with_its_code(tmp_path: Path) -> None:
    ended = run(tmp_path, [], "--out", "out", "--processes", "2", "--metric", "os:getcwd", "--lower-is-better", "x")
    assert ended.returncode not in (0, 75)
    assert ended.stderr.count("error[") == 1
