"""Start the processes of a run on this machine, by torch's elastic launcher, and end as the first that failed."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.errors import LoraMedError, StoppedError, UsageError
from lora_med.processes.failures import AGAIN, OWN_LAUNCHER, decode

TO_STOP = 600  # seconds that processes have for their step and checkpoint after a first signal
TO_MEET = 900  # seconds to wait for the other machines
HERE = "127.0.0.1"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """`processes` on each of `machines`; this is machine `machine_rank`, and they meet at `join` (HOST:PORT)."""

    processes: int = 1
    machines: int = 1
    machine_rank: int = 0
    join: str | None = None

    @property
    def is_single(self) -> bool:
        """Whether nothing need be launched."""
        return self.processes == self.machines == 1

    def check(self) -> None:
        """Refuse numbers that do not go together.

        Raises:
            UsageError: the message names the option.
        """
        if not 0 <= self.machine_rank < self.machines:
            last = f"0 to {self.machines - 1}"
            raise UsageError(f"--machine-rank is {self.machine_rank}, and with --machines {self.machines} it is {last}")
        if self.machines > 1 and self.join is None:
            raise UsageError(
                f"--machines is {self.machines}, and nothing says where they meet",
                fix="--join HOST:PORT on every machine: a name of machine 0 and a free port there",
            )
        if self.machines == 1 and self.join is not None:
            raise UsageError("--join is for several machines", fix="add --machines N and --machine-rank K")
        host, _, port = (self.join or f"{HERE}:1").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UsageError(f"--join is {self.join!r}, and it is HOST:PORT", fix="--join node0:29500")
        if not self.is_single and "RANK" in os.environ:
            raise UsageError("a launcher has started this process already", fix="leave --processes and --machines out")


def launch(arguments: Sequence[str], plan: Launch) -> int:
    """Run `python -m lora_med` with `arguments` in each process; returns 0, or the exit code of one without a message.

    SIGTERM and Ctrl-C go to the processes, which commit a checkpoint.

    Raises:
        LoraMedError: what the first process that failed reported.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ[OWN_LAUNCHER] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // plan.processes)))
    if plan.machines > 1:
        logger.info("machine %d of %d: joining %s", plan.machine_rank, plan.machines, plan.join)
    with tempfile.TemporaryDirectory(prefix="lora_med_launch_") as words:
        config = LaunchConfig(
            min_nodes=plan.machines,
            max_nodes=plan.machines,
            nproc_per_node=plan.processes,
            run_id="lora_med",
            rdzv_backend="static",
            rdzv_endpoint=plan.join or f"{HERE}:{_free_port()}",
            rdzv_configs={"rank": plan.machine_rank, "timeout": TO_MEET},
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=words),
            shutdown_timeout=TO_STOP,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "lora_med", *arguments)
        except ChildFailedError as error:
            raise_first(Path(words))
            return _without_words([failure.exitcode for failure in error.failures.values()])
        except SignalException as error:
            raise_first(Path(words))
            raise StoppedError(f"stopped by {signal.Signals(error.sigval).name}", fix=AGAIN) from None
        except RuntimeError as error:
            raise_first(Path(words))
            raise StoppedError(
                f"the machines did not meet, or one of them left ({type(error).__name__})", where=plan.join, fix=AGAIN
            ) from error
    return 0


def raise_first(words: Path) -> None:
    """Raise the error that a process left first in the folder of the launch; without one, return."""
    found: list[tuple[float, str]] = []
    for path in words.rglob("error.json"):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "lora_med" in content:
            found.append((content["time"], content["lora_med"]))
    if found:
        raise decode(min(found)[1])


def _without_words(codes: Sequence[int]) -> int:
    """The exit code of a launch whose processes left no error; those that were killed can be started again."""
    killed = [signal.Signals(-code).name for code in codes if code < 0]
    if killed:
        raise StoppedError(f"a process was killed ({killed[0]}) before it could report anything", fix=AGAIN)
    return next((code for code in codes if code), LoraMedError.exit_code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])
