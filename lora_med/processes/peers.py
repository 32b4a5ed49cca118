"""The processes of a run, joined through the launcher's store: marks, failures that reach all, and the common end.

Two threads in each process look after the others. One writes that this process lives and reads what the others wrote.
One judges: where another process failed or is gone, it ends this one with the same error, also inside a collective
operation that would never return. A single process has neither.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_med.errors import LoraMedError, StoppedError
from lora_med.processes import failures
from lora_med.processes.failures import NONE
from lora_med.processes.keeper import end_keeper
from lora_med.processes.launch import Place, rank
from lora_med.processes.launcher_store import is_held_here
from lora_med.processes.progress import SAY_AFTER, Heard, Progress, Waiting, hear, waiting_for

TICK = 0.5  # seconds between two beats; more with very many processes
POLL = 0.05
GRACE = 5.0  # for news of a peer's end, where an error may be its consequence; and for a checkpoint to be finished
NEWS_OF_A_KILL = 1.5  # after the signal that a launcher sends when it finds another process killed
ACKNOWLEDGED = 5.0  # for the others to read of a failure, as the store may end with this process
logger = logging.getLogger(__name__)


class Peers:
    """This process among those of its run.

    Args:
        places: where each process is, by rank.
        store: a client of the store.
        heartbeat_store: another one, for the thread that reports this process.
        keys: what all keys of this run begin with.
        keeper: the process id of this process's keeper.
        patience: seconds that others may keep this process waiting.
    """

    def __init__(
        self,
        places: Sequence[Place],
        store: Any,
        heartbeat_store: Any,
        *,
        keys: str,
        keeper: int,
        patience: float,
    ) -> None:
        self.places = list(places)
        self.own = self.places[rank()]
        self.keys = keys
        self.patience = patience
        self.output_dir = Path()
        self.on_end: Callable[[LoraMedError], None] = lambda error: None  # before this process is ended
        self.saving = threading.Lock()  # held while a checkpoint is written
        self.silent = False  # whether another process on this machine shows the failure
        self._store, self._heartbeat_store = store, heartbeat_store
        self._keeper = keeper
        self._progress, self._since = Progress(), time.monotonic()
        self._heard: dict[int, Heard] = {}
        self._answered = self._awake = time.monotonic()  # when the store last did; when this process was started
        self._failure, self._lost = NONE, False
        self._ending, self._ended = threading.Lock(), threading.Event()
        self._said, self._gathered = 0.0, 0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._exchange, self._judge)]

    # ---- What the run calls ----

    def start(self) -> None:
        """Begin to look after the others; every process has joined."""
        self._store.set(self._key("beat", self.own.rank), self._progress.encode(0))
        self.gather("joined")
        for thread in self._threads:
            thread.start()

    def mark(self, what: str, *, busy: bool = False, step: int | None = None) -> None:
        """Report a place that all processes pass: what this one does now, and the last step that it took."""
        last = self._progress
        step = last.step if step is None else step
        self._progress = replace(last, marks=last.marks + 1, what=what, busy=busy, step=step)
        self._since = time.monotonic()

    def mark_checkpoint(self, name: str, *, whole: bool) -> None:
        """Report the checkpoint that is being written, or that is committed."""
        changed = {"checkpoint": name, "writing": None} if whole else {"writing": name}
        self._progress = replace(self._progress, **changed)

    def mark_remains(self, text: str) -> None:
        """Say of work without steps and checkpoints what remains of it, where a process is gone."""
        self._progress = replace(self._progress, remains=text)

    def gather(self, value: str) -> list[str]:
        """The value of every process, by rank; each waits for all."""
        self._gathered += 1
        keys = [self._key("gathered", self._gathered, place.rank) for place in self.places]
        self._store.set(keys[self.own.rank], value)
        self._await(keys)
        return [text.decode() for text in self._store.multi_get(keys)]

    def leave(self) -> None:
        """End together: wait until every process has come to its end."""
        self.mark("at its end")
        self._await(self._set_for_all("done"))
        self._ending.acquire()  # for good: from here on no failure of others matters
        goodbyes = self._set_for_all("goodbye")
        if is_held_here():  # the others ask this process's store
            self._await(goodbyes, seconds=ACKNOWLEDGED)
        self._close()

    def failed(self, error: BaseException) -> LoraMedError | None:
        """Tell the others of this process's failure; the error to raise in its place, if another's came first."""
        own = self._as_error(error)
        if not self._ending.acquire(blocking=False):
            time.sleep(600)  # the thread that judges is ending this process
        came_over_the_network = not isinstance(error, LoraMedError) and isinstance(error, RuntimeError | OSError)
        if came_over_the_network or isinstance(error, KeyboardInterrupt):
            self._await_news(GRACE if came_over_the_network else NEWS_OF_A_KILL)
        first = self._first(failures.encode(own, self.own), is_own_fault=not came_over_the_network)
        if first is None or (first.what, first.exit_code) == (own.what, own.exit_code):
            self._await_acknowledged()
            first = own if failures.is_broken_connection(error) else None
        self._close()
        return first

    # ---- How a failure goes round ----

    def _as_error(self, error: BaseException) -> LoraMedError:
        """Any exception as one of ours; a lost connection is no bug, whoever it was to."""
        if failures.is_broken_connection(error):
            what = f"the connection to another process broke {failures.reached(self._progress)}"
            return StoppedError(what, where=str(self.output_dir), fix=failures.AGAIN)
        return failures.as_error(error)

    def _tell(self, error: LoraMedError) -> None:
        """Leave the failure in the store, which may not answer: a process that hangs and wakes up finds it there."""
        text = failures.encode(error, self.own)
        ask = threading.Thread(target=self._first, args=(text,), kwargs={"is_own_fault": True}, daemon=True)
        ask.start()
        ask.join(timeout=1)

    def _first(self, own: str, *, is_own_fault: bool) -> LoraMedError | None:
        """The failure that came first, None if it is this process's own."""
        try:
            text = self._store.compare_set(self._key("failure"), NONE, own).decode()
            self._store.set(self._key("read", self.own.rank), "")
        except RuntimeError:
            return None if is_own_fault else self._gone(self.places[0])
        if text == own:
            return None
        self.silent = self._is_shown_elsewhere(text)
        return self._error(text)

    def _error(self, text: str) -> LoraMedError:
        place, is_gone = failures.culprit(text)
        return self._gone(place) if is_gone else failures.decode(text)

    def _is_shown_elsewhere(self, text: str) -> bool:
        place, is_gone = failures.culprit(text)
        return failures.is_shown_by(place, self.own, is_gone, self.places)

    def _gone(self, place: Place) -> StoppedError:
        return failures.gone(place, str(self.output_dir), self._progress)

    def _await_news(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._failure == NONE and not self._lost and time.monotonic() < deadline:
            time.sleep(POLL)

    def _await_acknowledged(self) -> None:
        others = [self._key("read", place.rank) for place in self.places if place.rank != self.own.rank]
        self._await(others, seconds=ACKNOWLEDGED)

    # ---- The two threads ----

    def _exchange(self) -> None:
        """Write that this process lives, and read what the others wrote, until the run ends."""
        store, beat = self._heartbeat_store, 0
        keys = [self._key("failure"), *(self._key("beat", place.rank) for place in self.places)]
        pause = max(TICK, len(self.places) / 64)
        while not self._ended.wait(pause):
            beat += 1
            try:
                store.set(keys[1 + self.own.rank], self._progress.encode(beat))
                failure, *beats = (value.decode() for value in store.multi_get(keys))
                if failure != NONE:
                    store.set(self._key("read", self.own.rank), "")
            except RuntimeError:  # the store's holder is gone
                self._lost = True
                return
            now = self._answered = time.monotonic()
            self._heard = {
                place.rank: hear(self._heard.get(place.rank), text, now)
                for place, text in zip(self.places, beats, strict=True)
                if place.rank != self.own.rank
            }
            self._failure = failure

    def _judge(self) -> None:
        """End this process where another failed, is gone, or keeps it waiting for too long."""
        looked = time.monotonic()
        while not self._ended.wait(POLL):
            looked, before = time.monotonic(), looked
            if looked - before > TICK + GRACE:  # this process itself was stopped: what it heard is old
                self._awake = looked
            if self._failure != NONE:
                verdict: LoraMedError | None = self._error(self._failure)
            elif self._lost:
                verdict = self._gone(self.places[0])
            else:
                verdict = self._patience_lost()
            if verdict is not None and self._ending.acquire(blocking=False):
                self.silent = self._failure != NONE and self._is_shown_elsewhere(self._failure)
                if self._failure == NONE and not self._lost:
                    self._tell(verdict)
                self._end(verdict)

    def _waits(self) -> list[Waiting]:
        now = time.monotonic()
        heard = {number: replace(report, at=max(report.at, self._awake)) for number, report in self._heard.items()}
        if (
            now - max(self._answered, self._awake) >= SAY_AFTER
        ):  # then nobody is heard, because the store's holder does not answer
            heard = {number: report for number, report in heard.items() if number == 0}
        return waiting_for(self._progress, max(self._since, self._awake), heard, dict(enumerate(self.places)), now)

    def _patience_lost(self) -> StoppedError | None:
        """Say for whom this process waits; the error where it has waited for too long."""
        waits = self._waits()
        if not waits:
            self._said = 0.0
            return None
        longest = max(waits, key=lambda wait: (wait.may_end, wait.seconds))
        if longest.may_end and longest.seconds >= self.patience:
            return failures.waited_too_long(longest, str(self.output_dir), self._progress)
        if longest.seconds >= max(SAY_AFTER, 2 * self._said):
            self._said = longest.seconds
            say("waiting for %s, %s, since %s", longest.place, longest.reason, longest.since)
        return None

    def _end(self, error: LoraMedError) -> None:
        """End this process from beside its main thread, which may be where no exception reaches it."""
        self.saving.acquire(timeout=GRACE)
        self.on_end(error)
        end_keeper(self._keeper)
        show(error, silent=self.silent)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(error.exit_code)

    # ---- The store ----

    def _key(self, *parts: object) -> str:
        return "/".join(map(str, (self.keys, *parts)))

    def _set_for_all(self, name: str) -> list[str]:
        keys = [self._key(name, place.rank) for place in self.places]
        self._store.set(keys[self.own.rank], "")
        return keys

    def _await(self, keys: list[str], *, seconds: float | None = None) -> None:
        """Wait for keys; with `seconds` no longer, and whatever happens to the store."""
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while not self._store.check(keys) and (deadline is None or time.monotonic() < deadline):
                time.sleep(POLL)
        except RuntimeError:
            if deadline is None:
                self._await_news(GRACE)
                raise self._error(self._failure) if self._failure != NONE else self._gone(self.places[0]) from None

    def _close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2 * TICK)
        end_keeper(self._keeper)


def say(text: str, *arguments: object) -> None:
    """Log a line once on each machine: other processes than rank 0 log errors only."""
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        logger.log(logging.ERROR if rank() else logging.WARNING, text, *arguments)


def show(error: LoraMedError, *, silent: bool) -> None:
    """Show an error that ends this process, unless another process or our launcher shows it."""
    is_shown_by_launcher = failures.leave_word(error)
    if not silent and not is_shown_by_launcher:
        logger.error("%s%s", f"[process {rank()}] " if rank() else "", error)
