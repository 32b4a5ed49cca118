"""Two machines on this one: `lora-med train` twice, joined over loopback, each with folders of its own.

They are forks of this warm process, as fresh ones would import trl for ten seconds each.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for warm in ("lora_med.training.trainer", "lora_med.training.tag_trainer", "bitsandbytes"):  # what each fork needs
    importlib.import_module(warm)
SAMPLE = Path(__file__).parents[2] / "lora_med" / "assets" / "sample" / "qa_sample.json"


@dataclass
class Machine:
    """One machine of a run: its disk, what it printed, its process, and once it has ended its exit code and when."""

    folder: Path
    output: Path
    process: int
    code: int | None = None
    ended: float = 0.0

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def adapter(self) -> bytes:
        return (self.folder / "adapters" / "mine" / "adapter_model.safetensors").read_bytes()

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in self.run.glob("checkpoint-*"))

    def status(self) -> str:
        return json.loads((self.run / "run.json").read_text())["status"]


@dataclass
class Machines:
    """A launch on several machines."""

    every: list[Machine] = field(default_factory=list)

    def __getitem__(self, number: int) -> Machine:
        return self.every[number]

    def signal(self, number: int, what: signal.Signals) -> float:
        """Send a signal to the process of a machine; returns when."""
        os.kill(self.every[number].process, what)
        return time.monotonic()

    def wait(self, *numbers: int, seconds: float = 90) -> list[int | None]:
        """The exit codes once the machines (all, without numbers) have ended; -SIGALRM of one that did not."""
        waited = [self.every[number] for number in numbers or range(len(self.every))]
        deadline = time.monotonic() + seconds
        while any(machine.code is None for machine in waited):
            for machine in waited:
                self._look(machine)
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError("\n---\n".join(machine.said for machine in self.every))
            time.sleep(0.02)
        return [machine.code for machine in waited]

    def until(self, happened: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something has happened while all run."""
        deadline = time.monotonic() + seconds
        while not happened():
            for machine in self.every:
                self._look(machine)
            ended = any(machine.code is not None for machine in self.every)
            if ended or time.monotonic() > deadline:
                self.kill()
                raise AssertionError("\n---\n".join(machine.said for machine in self.every))
            time.sleep(0.02)

    def kill(self) -> None:
        for machine in self.every:
            if machine.code is None:
                os.kill(machine.process, signal.SIGKILL)
                os.waitpid(machine.process, 0)
                machine.code = -9

    def _look(self, machine: Machine) -> None:
        if machine.code is None:
            done, status = os.waitpid(machine.process, os.WNOHANG)
            if done:
                machine.code, machine.ended = os.waitstatus_to_exitcode(status), time.monotonic()


STARTED: list[Machines] = []  # of the running test, whose fixture ends what a failed assertion leaves


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(base: Path, folder: Path) -> list[str]:
    """A run of six steps with two checkpoints, on sixteen questions and a tiny base."""
    return [
        "data.source=pubmedqa",
        f"data.paths=[{SAMPLE}]",
        "data.max_records=16",
        "data.validation_share=0.2",
        "data.test_share=0.2",
        "data.decontaminate=false",  # its threads, where this process has started them, hang in a fork
        f"model.base={base}",
        "model.load_in_4bit=false",
        "model.dtype=float32",
        "train.max_steps=6",
        "train.save_steps=3",
        "train.eval_steps=3",
        "train.logging_steps=1",
        "train.per_device_train_batch_size=1",
        "train.max_length=2048",
        "lora.r=4",
        "adapter.name=mine",
        "adapter.overwrite=true",
        f"train.output_dir={folder / 'run'}",
        f"adapter.store={folder / 'adapters'}",
    ]


def start(
    base: Path,
    folder: Path,
    *common: str,
    own: Sequence[Sequence[str]] = ((), ()),
    shared_disk: bool = False,
    before: Callable[[int], Any] | None = None,
) -> Machines:
    """Start a run on as many machines as `own` has entries: settings that one machine alone has.

    Args:
        before: called in each process, with its rank, before the command.
    """
    port, machines = free_port(), Machines()
    STARTED.append(machines)
    for number, extra in enumerate(own):
        place = folder / ("shared" if shared_disk else f"machine{number}")
        place.mkdir(parents=True, exist_ok=True)
        output = folder / f"machine{number}.txt"
        child = os.fork()
        if not child:
            _become(number, len(own), port, output, [*settings(base, place), *common, *extra], before)
        machines.every.append(Machine(place, output, child))
    return machines


def _become(
    number: int, count: int, port: int, said: Path, overrides: list[str], before: Callable[[int], Any] | None
) -> None:
    """Be one process of the launch, in this fork; it never returns."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    from lora_med.cli.main import run

    code = 70
    try:
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
        os.environ.update(
            RANK=str(number),
            LOCAL_RANK="0",
            GROUP_RANK=str(number),
            WORLD_SIZE=str(count),
            LOCAL_WORLD_SIZE="1",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
        PartialState._reset_state()
        if before is not None:
            before(number)
        code = run(["train", *overrides])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
