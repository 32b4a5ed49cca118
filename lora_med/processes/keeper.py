"""A small process beside each process of a launch, which tells the others when that one is killed.

A killed process can say nothing, and the store does not report who left. The keeper is forked before any file of the
run is open, in a session of its own, so that what ends its process leaves it alive. It sees its parent change, tells
the store, and ends. A process that hangs has a living keeper, so the two are never confused.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import time
import warnings
from pathlib import Path

from lora_med.processes.failures import NONE, encode_gone
from lora_med.processes.launch import Place
from lora_med.processes.launcher_store import connect

SECONDS = 0.5  # between two looks at the parent
TO_CONNECT = 10.0  # after that the store is gone too, and there is nobody to tell
_ARGUMENTS = 45, 46  # where arg_start and arg_end are in /proc/self/stat, counted after the name


def start_keeper(place: Place, prefix: str) -> int:
    """Fork the keeper of this process and return its id; call it before this process holds the store or a lock."""
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads, which libraries start
        child = os.fork()
    if child:
        return child
    with contextlib.suppress(BaseException):
        _detach(f"lora_med: tells the others if process {place.rank} is gone")
        _keep(parent, place, prefix)
    os._exit(0)


def end_keeper(child: int) -> None:
    """End the keeper of this process, which leaves or has told its own failure."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _detach(title: str) -> None:
    """Nothing of the run's: no terminal, no open file, no handler of signals, not its name in `ps`."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    gc.disable()
    with contextlib.suppress(OSError, ValueError, IndexError):
        _rename(title.encode())


def _rename(title: bytes) -> None:
    """Write `title` over this process's command line, in the memory where the kernel reads it."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[place]) for place in _ARGUMENTS)
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, title[: end - start - 1], min(len(title), end - start - 1))


def _keep(parent: int, place: Place, prefix: str) -> None:
    store = None
    while os.getppid() == parent:
        if store is None:
            with contextlib.suppress(RuntimeError):
                store = connect(TO_CONNECT)
        time.sleep(SECONDS)
    store = connect(TO_CONNECT) if store is None else store
    store.compare_set(f"{prefix}/failure", "", NONE)
    store.compare_set(f"{prefix}/failure", NONE, encode_gone(place))
