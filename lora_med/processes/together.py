"""Join the processes of a launch for a run, and pass what ends one of them to all."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from lora_med.errors import LoraMedError, StoppedError
from lora_med.processes import failures
from lora_med.processes.failures import NONE
from lora_med.processes.keeper import end_keeper, start_keeper
from lora_med.processes.launch import Place, own_place, world_size
from lora_med.processes.launcher_store import address, connect, forget_earlier_attempt, is_held_here, prefix
from lora_med.processes.peers import POLL, Peers, say
from lora_med.processes.progress import SAY_AFTER, Progress

STARTING = 20.0  # seconds that a failure before the meeting waits for processes that are still starting
_current: Peers | None = None
_joins = 0  # runs that this process has joined or failed to join
_silent = False


def mark(what: str, *, busy: bool = False, step: int | None = None) -> None:
    """Report a place that all processes of the run pass; nothing where there is one process (see `Peers.mark`)."""
    if _current is not None:
        _current.mark(what, busy=busy, step=step)


def mark_checkpoint(name: str, *, whole: bool) -> None:
    """Report the checkpoint that is being written, and that it is whole, for what is said where a process is gone."""
    if _current is not None:
        _current.mark_checkpoint(name, whole=whole)


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """Around the writing of a checkpoint: a failure elsewhere ends this process some seconds later."""
    if _current is None:
        yield
        return
    with _current.saving:
        yield


def is_shown_elsewhere(error: LoraMedError) -> bool:
    """Whether another process on this machine, or the launcher, shows the error that ends this process."""
    return failures.leave_word(error) or _silent


def end_process(code: int) -> NoReturn:
    """Exit; of several processes one that failed skips the seconds in which Python takes torch apart."""
    if world_size() > 1 and code:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def together(output_dir: Path | str, *, patience: float) -> Iterator[Peers | None]:
    """The processes of this launch, joined for one run; None for a single process, which costs nothing.

    What is raised inside ends all processes with its message and exit code. A killed process ends the others with 75.

    Args:
        patience: seconds to wait for others (`train.peer_timeout`).

    Raises:
        LoraMedError: of this process, or the one that failed first.
    """
    global _current, _joins, _silent
    if world_size() < 2 or _current is not None:
        yield _current
        return
    _joins += 1
    peers = _current = _join(prefix(_joins - 1), patience)
    peers.output_dir = Path(output_dir)
    restore = _interrupt_at_sigterm()
    try:
        yield peers
    except BaseException as error:
        _ignore_sigterm()
        first = peers.failed(error)
        _silent = first is not None and peers.silent
        if first is not None:
            raise first from error
        raise
    else:
        peers.leave()
        restore()
    finally:
        _current = None


def _interrupt_at_sigterm() -> Callable[[], object]:
    """Take SIGTERM as Ctrl-C; returns what puts the earlier handler back. The trainer has handlers of its own.

    A launcher that finds one process killed sends SIGTERM to the others, and they should live to say whose end it was.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = signal.signal(signal.SIGTERM, _interrupt)
    return lambda: signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _ignore_sigterm() -> None:
    """Let this process come to its end: an error is on its way to the others and to the user."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextlib.contextmanager
def telling_others() -> Iterator[None]:
    """Around a whole command: what ends this process before it could join the others is told to them too."""
    joined = _joins
    try:
        yield
    except Exception as error:
        if world_size() > 1 and _joins == joined:
            _tell(failures.as_error(error))
        raise


def _tell(error: LoraMedError) -> None:
    """Tell the others, which wait or are about to, of a failure before the meeting."""
    global _joins, _silent
    keys, own = prefix(_joins), own_place()
    _joins += 1
    with contextlib.suppress(RuntimeError, LoraMedError):
        store = connect(STARTING, as_host=is_held_here())
        store.compare_set(f"{keys}/failure", "", NONE)
        first = store.compare_set(f"{keys}/failure", NONE, failures.encode(error, own)).decode()
        store.set(f"{keys}/read/{own.rank}", "")
        place, is_gone = failures.culprit(first)
        _silent = place != own and not is_gone and place.machine == own.machine
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline and not store.check([f"{keys}/read/{n}" for n in range(world_size())]):
            time.sleep(POLL)


def _join(keys: str, patience: float) -> Peers:
    own, where = own_place(), address()
    keeper = start_keeper(own, keys)
    try:
        started = time.monotonic()
        store = _open_store(where, started, patience)
        forget_earlier_attempt(store)  # before this process is seen by the others
        store.compare_set(f"{keys}/failure", "", NONE)
        store.set(f"{keys}/place/{own.rank}", json.dumps(asdict(own)))
        _meet(store, keys, own, started, patience)
        store.set_timeout(timedelta(seconds=2 * patience))
        places = [Place(**json.loads(store.get(f"{keys}/place/{number}"))) for number in range(world_size())]
        peers = Peers(places, store, connect(2 * patience), keys=keys, keeper=keeper, patience=patience)
        peers.start()
    except BaseException:
        end_keeper(keeper)
        raise
    return peers


def _open_store(where: str, started: float, patience: float) -> Any:
    """A client of the store, once its holder runs."""
    said = False
    while True:
        try:
            return connect(min(SAY_AFTER, patience), as_host=is_held_here())
        except RuntimeError as error:
            waited = time.monotonic() - started
            if waited >= patience:
                raise StoppedError(
                    f"waited {waited:.0f} s for process 0, whose store at {where} does not answer",
                    where="train.peer_timeout",
                    fix="start all processes; give each machine the address of the first",
                ) from error
            if not said:
                say("waiting for process 0, whose store at %s does not answer yet", where)
            said = True
            time.sleep(POLL)


def _told(text: str, own: Place) -> LoraMedError:
    """The error of a process that failed before all had met."""
    global _silent
    place, is_gone = failures.culprit(text)
    _silent = failures.is_shown_by(place, own, is_gone)
    if is_gone:
        return failures.gone(place, "before all processes had started", Progress())
    return failures.decode(text)


def _meet(store: Any, keys: str, own: Place, started: float, patience: float) -> None:
    """Wait until every process has joined; end with what ends another one before."""
    said = SAY_AFTER
    while not store.check([f"{keys}/place/{number}" for number in range(world_size())]):
        text = store.get(f"{keys}/failure").decode()
        if text != NONE:
            store.set(f"{keys}/read/{own.rank}", "")
            raise _told(text, own)
        waited = time.monotonic() - started
        missing = [str(n) for n in range(world_size()) if not store.check([f"{keys}/place/{n}"])]
        listed = f"process{'es' if len(missing) > 1 else ''} {', '.join(missing)}"
        if waited >= patience:
            raise StoppedError(
                f"waited {waited:.0f} s for {listed} to start",
                where="train.peer_timeout",
                fix="start all processes at about the same time",
            )
        if waited >= said:
            since = time.strftime("%H:%M:%S", time.localtime(time.time() - waited))
            say("waiting for %s to start, since %s", listed, since)
            said *= 2
        time.sleep(POLL)
