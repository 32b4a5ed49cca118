"""How far a process has come, as the others see it, and for whom it waits."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lora_med.processes.launch import Place

SAY_AFTER = 30.0  # seconds of waiting after which a process says for whom it waits


@dataclass(frozen=True)
class Progress:
    """The last mark that a process passed: `marks` counts them, and all processes of a run pass the same ones.

    `busy` is true where it works by itself, such as reading its data, and so needs nobody and may take any time.
    """

    marks: int = 0
    what: str = "starting"
    busy: bool = True
    step: int | None = None
    checkpoint: str | None = None
    writing: str | None = None  # a checkpoint that may be whole or not
    remains: str | None = None  # of work without steps and checkpoints: how far it has come, and what of it remains

    def encode(self, beat: int) -> str:
        """The progress with the number of the beat, which shows that the process lives."""
        return json.dumps([beat, self.marks, self.what, self.busy])

    @classmethod
    def decode(cls, text: str) -> Progress:
        """The progress that `encode` wrote."""
        _, marks, what, busy = json.loads(text)
        return cls(marks, what, busy)


@dataclass(frozen=True)
class Heard:
    """What another process last reported, and when this one last heard something new (monotonic seconds)."""

    text: str
    at: float
    progress: Progress


def hear(before: Heard | None, text: str, now: float) -> Heard:
    """`before` with a new report."""
    return before if before is not None and before.text == text else Heard(text, now, Progress.decode(text))


@dataclass(frozen=True)
class Waiting:
    """For whom a process waits: `reason` in words, and seconds; `may_end` is false while that one reports work."""

    place: Place
    reason: str
    seconds: float
    may_end: bool

    @property
    def since(self) -> str:
        """The time of day at which the waiting began."""
        return time.strftime("%H:%M:%S", time.localtime(time.time() - self.seconds))


def waiting_for(
    own: Progress, own_since: float, heard: Mapping[int, Heard], places: Mapping[int, Place], now: float
) -> list[Waiting]:
    """Whom this process waits for: those that are behind it or silent, once nothing has moved for half a minute."""
    stuck = now - own_since
    if own.busy or stuck < SAY_AFTER:
        return []
    waits = []
    for rank, report in heard.items():
        silent = now - report.at
        if silent >= SAY_AFTER:
            waits.append(Waiting(places[rank], "which no longer reports", min(stuck, silent), True))
        elif report.progress.marks < own.marks:
            busy, what = report.progress.busy, report.progress.what
            waits.append(Waiting(places[rank], f"which is {what}", stuck, not busy))
    return waits
