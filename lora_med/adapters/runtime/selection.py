"""Which adapter a forward pass uses. The choice belongs to the running context (thread or task), not to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from lora_med.adapters.runtime.expert_forward import StackUpdate
from lora_med.adapters.runtime.layer_update import Adapter, SeatedStack, Seats, Stack, Update, seat, stack
from lora_med.errors import SettingsError

# From this many tokens per row, one product for each adapter's rows is faster than the stack, whose cost grows with the
# number of adapters: at 8 tokens they were equal, at 32 the stack took 2.5 times as long (8 adapters of rank 16).
LONG_ROWS = 8


@dataclass(frozen=True, eq=False)
class One:
    """One adapter for every row."""

    adapter: Adapter

    def owners(self, rows: int) -> list[Adapter | None]:
        """The adapter of each row of a batch."""
        return [self.adapter] * rows

    def add(self, layer: str, x: torch.Tensor, output: torch.Tensor) -> None:
        """Add the adapter's update to the layer's output, in place."""
        update = self.adapter.updates.get(layer)
        if update is not None:
            update.add(x, output)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Adapters that may share a batch; their updates are stacked layer by layer, at first use."""

    adapters: tuple[Adapter, ...]
    stacks: dict[str, Stack] = field(default_factory=dict)

    def stack(self, layer: str) -> Stack:
        """The updates of all these adapters in one layer, which at least one of them adapts."""
        layer_stack = self.stacks.get(layer)
        if layer_stack is None:
            with torch.inference_mode(False), torch.no_grad():
                layer_stack = stack([adapter.updates.get(layer) for adapter in self.adapters])
            self.stacks[layer] = layer_stack  # two threads at once may both build it, with equal values
        return layer_stack


class Rows:
    """An adapter, or none, for each row of the batch."""

    def __init__(self, rows: Sequence[Adapter | None], mixture: Mixture) -> None:
        """Take the adapter of each row, and a `mixture` that holds at least these adapters."""
        self._rows = list(rows)
        numbers = {adapter: number for number, adapter in enumerate(mixture.adapters)}
        self._owners = [-1 if adapter is None else numbers[adapter] for adapter in rows]
        self._mixture = mixture
        self._adapters = tuple({adapter: None for adapter in rows if adapter is not None})
        self._runs: list[tuple[slice, Adapter]] = []
        begin = 0
        for adapter, members in groupby(rows):
            end = begin + len(list(members))
            if adapter is not None:
                self._runs.append((slice(begin, end), adapter))
            begin = end
        self._seated: dict[str, SeatedStack] = {}
        self._seats: dict[tuple[tuple[int, ...], torch.device], Seats] = {}
        self._foreign: dict[tuple[tuple[int, ...], torch.device], torch.Tensor] = {}
        self._gains: dict[str, torch.Tensor | None] = {}

    def refuse_experts(self) -> None:
        """Refuse adapters of routed experts: a layer of experts sees tokens that are sorted by expert, and no rows.

        Raises:
            SettingsError: with the adapter's name.
        """
        names = [adapter.name for adapter in self._adapters if adapter.experts]
        if names:
            raise SettingsError(
                f"adapter {names[0]!r} updates routed experts, so it shares no batch with other adapters or the base",
                fix=f"use it for all rows of the batch, or merge it: lora-med merge {names[0]} --out FOLDER",
            )

    def owners(self, rows: int) -> list[Adapter | None]:
        """The adapter of each row of a batch, or None; `check` has compared their number."""
        return self._rows

    def add(self, layer: str, x: torch.Tensor, output: torch.Tensor) -> None:
        """Add to each row of the layer's output, in place, its own adapter's update; rows of the base do not change.

        Raises:
            SettingsError: the number of rows in the batch differs from the number of adapter names.
        """
        seated = self._seated.get(layer)
        if seated is not None and output.ndim == 3 and len(output) == len(self._rows) and output.shape[1] < LONG_ROWS:
            seated.add(x, output)
            return
        if not any(layer in adapter.updates for adapter in self._adapters):
            return
        if output.ndim == 2 and len(output) % len(self._owners) == 0:  # some models join rows and tokens, rows first
            x, output = (numbers.unflatten(0, (len(self._owners), -1)) for numbers in (x, output))
        self.check(output)
        if output.shape[1] >= LONG_ROWS:
            for rows, adapter in self._runs:
                update = adapter.updates.get(layer)
                if update is not None:
                    update.add(x[rows], output[rows])
            return
        layer_stack = self._mixture.stack(layer)
        gains = self._gains_of_rows(layer, layer_stack)
        if layer_stack.common_rank is None:
            layer_stack.add(x, output, self._foreign_to_rows(layer_stack), gains)
        else:
            with torch.inference_mode(False), torch.no_grad():
                seated = SeatedStack(layer_stack, self._seats_of_rows(layer_stack), gains)
            self._seated[layer] = seated  # a batch's rows decode many tokens
            seated.add(x, output)

    def check(self, output: torch.Tensor) -> None:
        """Refuse a layer's output, (rows, tokens, outputs), of another number of rows than have a name.

        Raises:
            SettingsError: with both numbers.
        """
        if output.ndim != 3 or len(output) != len(self._owners):
            raise SettingsError(
                f"adapters are named for {len(self._owners)} rows; the batch is {tuple(output.shape)}",
                fix="give one name per row; no beams or several answers per prompt",
            )

    def _seats_of_rows(self, layer_stack: Stack) -> Seats:
        """The rows arranged by adapter; many layers share one arrangement."""
        key = layer_stack.ranks, layer_stack.down.device
        seats = self._seats.get(key)
        if seats is None:
            with torch.inference_mode(False):
                seats = seat(self._owners, layer_stack.ranks, layer_stack.down.device)
            self._seats[key] = seats
        return seats

    def _foreign_to_rows(self, layer_stack: Stack) -> torch.Tensor:
        """(rows, 1, ranks): true where row and rank belong to different adapters; many layers share one mask."""
        key = layer_stack.ranks, layer_stack.down.device
        mask = self._foreign.get(key)
        if mask is None:
            with torch.inference_mode(False):
                owners = torch.repeat_interleave(torch.arange(len(layer_stack.ranks)), torch.tensor(layer_stack.ranks))
                mask = (torch.tensor(self._owners)[:, None, None] != owners).to(layer_stack.down.device)
            self._foreign[key] = mask
        return mask

    def _gains_of_rows(self, layer: str, layer_stack: Stack) -> torch.Tensor | None:
        """(2, rows, 1, outputs): gain and gain of the bias of each row; None if no adapter of the rows has one here."""
        if layer in self._gains:
            return self._gains[layer]
        rows = None
        here: list[Update | None] = [adapter.updates.get(layer) for adapter in self._adapters]
        if (
            layer_stack.gains is not None
            and layer_stack.gains_of_bias is not None
            and any(u and u.gain is not None for u in here)
        ):
            with torch.inference_mode(False), torch.no_grad():
                owners = torch.tensor(self._owners, device=layer_stack.gains.device)
                both = torch.stack([layer_stack.gains, layer_stack.gains_of_bias])[:, owners.clamp_min(0)]
                rows = (both * (owners >= 0)[:, None])[:, :, None]
        self._gains[layer] = rows
        return rows


def expert_updates(module: Any) -> Mapping[str, StackUpdate]:
    """The updates of a module of routed experts that the running context has chosen: parameter -> update."""
    for choice in _NOW.get().chosen.values():
        if isinstance(choice, One) and module in choice.adapter.experts:
            return choice.adapter.experts[module]
    return {}


@dataclass(frozen=True)
class _Now:
    """The choice of the running context for each pool's key, and whether the context holds an adapter in memory."""

    chosen: Mapping[object, One | Rows | None]
    holding: bool


_NOW: ContextVar[_Now] = ContextVar("lora_med_adapters", default=_Now({}, False))  # noqa: B039 - never mutated


def chosen(key: object) -> One | Rows | None:
    """The running context's choice from the pool with this key; None is the bare base."""
    return _NOW.get().chosen.get(key)


def holding() -> bool:
    """Whether the running context prevents the eviction of an adapter."""
    return _NOW.get().holding


@contextmanager
def choose(key: object, choice: One | Rows | None) -> Iterator[None]:
    """Make a choice for the running context, until the block ends."""
    now = _NOW.get()
    token = _NOW.set(_Now({**now.chosen, key: choice}, now.holding or choice is not None))
    try:
        yield
    finally:
        _NOW.reset(token)
