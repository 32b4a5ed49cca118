"""Stopping a run between two steps: on request, when it diverges, or when validation no longer improves."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class StopRequest:
    """Whether a stop of this process was requested; `caught` turns SIGTERM and Ctrl-C into such a request."""

    requested: bool = False
    _previous: dict[int, Any] = field(default_factory=dict)

    def _request_stop(self, number: int, frame: Any) -> None:
        if self.requested:  # a second signal stops at once
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
            return
        self.requested = True
        logger.warning("stopping after this step; send the signal again to stop at once, without a checkpoint")

    @contextlib.contextmanager
    def caught(self) -> Iterator[StopRequest]:
        """Catch SIGTERM and Ctrl-C inside the block; outside the main thread, where this is impossible, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._previous = {number: signal.signal(number, self._request_stop) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)


def agree(flags: list[bool], device: torch.device) -> list[bool]:
    """Each flag, true if it is true on any process: all processes take the same decision at the same step."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return flags
    votes = torch.tensor([float(flag) for flag in flags], device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return [bool(vote) for vote in votes.tolist()]


def no_longer_improves(
    history: list[dict[str, Any]], metric: str, *, patience: int | None, greater_is_better: bool
) -> bool:
    """Whether the last `patience` validations brought no better `metric`.

    The history is part of every checkpoint, so a resumed run decides as an uninterrupted one. The validation before the
    first step is the base's and does not count.
    """
    values = [entry[metric] for entry in history if metric in entry and entry["step"] > 0]
    if patience is None or len(values) <= patience:
        return False
    best = max(values) if greater_is_better else min(values)
    return values.index(best) < len(values) - patience
