"""A process that opens the data and prepares the rows, so that a training process never holds records or tokens.

It is a new Python process without torch and without threads. It holds the records until the rows are written, and
starts one fork for each core to tokenize. What it holds is gone when it ends, and nothing of the records is written.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lora_med.data.scanning.workers import exchange, start_worker
from lora_med.errors import StoppedError
from lora_med.run import set_up_logging, set_verbosity
from lora_med.training.preparation.row_files import RowFile, write_row_file
from lora_med.training.preparation.token_files import end_with_parent

Result = TypeVar("Result")
_held: dict[str, Any] = {}  # in the process that prepares: what it opened


def cores() -> int:
    """How many processes tokenize: one for each core that this process may use."""
    return len(os.sched_getaffinity(0))


class Preparer:
    """The process, started at the first request, and started again after `close`; `access` is the data's class."""

    def __init__(self) -> None:
        self.access: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, work: Callable[[Any], Result], job: Any) -> Result:
        """The result of `work(job)` in that process.

        Raises:
            StoppedError: the process was ended from outside.
            Exception: as `work`.
        """
        if self._process is None:
            self._process = start_worker()
            self.ask(_set_up, logging.getLogger("lora_med").level)
        try:
            is_done, value = exchange(self._process, work, job)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            status = self._process.wait()
            self._process = None
            if status >= 0:
                raise RuntimeError(f"the process that prepares the data failed (status {status})") from error
            raise StoppedError(
                f"the process that prepares the data was ended from outside (signal {-status}); nothing of it is used",
                fix="run the same command again; if memory is short: data.streaming=true",
            ) from error
        if not is_done:
            raise value
        return value

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None

    def write(self, records: Sequence[Any] | str, file: RowFile) -> None:
        """Write the rows of a split; `records` names what the process holds, or is sent to it."""
        self.ask(_write, (records, file))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def hold(name: str, value: Any) -> None:
    """Keep a value in this process for later requests."""
    _held[name] = value


def held(name: str) -> Any:
    """A value that this process keeps."""
    return _held[name]


def _set_up(level: int) -> None:
    end_with_parent()
    set_up_logging()
    set_verbosity(level)


def _write(job: tuple[Sequence[Any] | str, RowFile]) -> None:
    records, file = job
    write_row_file(_held[records] if isinstance(records, str) else records, file, cores())
