"""Which adapter a forward pass uses: a choice of the running context (thread or task), never a state of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby

import torch

from lora_med.adapters.runtime.layer_update import Adapter, Stack, Update, stack
from lora_med.errors import SettingsError

# From so many tokens a row on, one product for each adapter's rows is faster than the stack's, whose work grows with
# all that are stacked: at 8 tokens they were even, at 32 the stack took 2.5 times as long (8 adapters of rank 16).
LONG_ROWS = 8


@dataclass(frozen=True, eq=False)
class One:
    """One adapter for every row."""

    adapter: Adapter

    def add(self, layer: str, x: torch.Tensor, output: torch.Tensor) -> None:
        """Add to the layer's output, in place, the adapter's part."""
        update = self.adapter.updates.get(layer)
        if update is not None:
            update.add(x, output)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Adapters that may share a batch; their updates are stacked layer by layer, when first needed."""

    adapters: tuple[Adapter, ...]
    stacks: dict[str, Stack] = field(default_factory=dict)

    def stack(self, layer: str) -> Stack:
        """The updates of all these adapters in one layer, which at least one of them adapts."""
        layer_stack = self.stacks.get(layer)
        if layer_stack is None:
            with torch.inference_mode(False), torch.no_grad():
                layer_stack = stack([adapter.updates.get(layer) for adapter in self.adapters])
            self.stacks[layer] = layer_stack  # two threads that come at once make it twice, the same
        return layer_stack


class Rows:
    """An adapter, or none, for each row of the batch."""

    def __init__(self, rows: Sequence[Adapter | None], mixture: Mixture) -> None:
        """`mixture` holds at least the adapters of `rows`."""
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
        self._foreign: dict[tuple[tuple[int, ...], torch.device], torch.Tensor] = {}
        self._gains: dict[str, torch.Tensor | None] = {}

    def add(self, layer: str, x: torch.Tensor, output: torch.Tensor) -> None:
        """Add to each row of the layer's output, in place, its own adapter's part; rows of the base stay as they are.

        Raises:
            SettingsError: the batch has not as many rows as adapters were named for.
        """
        if not any(layer in adapter.updates for adapter in self._adapters):
            return
        if output.ndim != 3 or len(output) != len(self._owners):
            raise SettingsError(
                f"adapters are named for {len(self._owners)} rows; layer {layer} got {tuple(x.shape)}",
                fix="one name per row, and no beams or several answers per prompt",
            )
        if output.shape[1] >= LONG_ROWS:
            for rows, adapter in self._runs:
                update = adapter.updates.get(layer)
                if update is not None:
                    update.add(x[rows], output[rows])
            return
        layer_stack = self._mixture.stack(layer)
        layer_stack.add(x, output, self._foreign_to_rows(layer_stack), self._gains_of_rows(layer, layer_stack))

    def _foreign_to_rows(self, layer_stack: Stack) -> torch.Tensor:
        """(rows, 1, ranks): true where the row belongs to another adapter than the rank; many layers share one."""
        key = layer_stack.ranks, layer_stack.down.device
        mask = self._foreign.get(key)
        if mask is None:
            with torch.inference_mode(False):
                owners = torch.repeat_interleave(torch.arange(len(layer_stack.ranks)), torch.tensor(layer_stack.ranks))
                mask = (torch.tensor(self._owners)[:, None, None] != owners).to(layer_stack.down.device)
            self._foreign[key] = mask
        return mask

    def _gains_of_rows(self, layer: str, layer_stack: Stack) -> torch.Tensor | None:
        """(2, rows, 1, outputs): gain and gain of the bias of each row; None if no row's adapter has any here."""
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


@dataclass(frozen=True)
class _Now:
    """What the running context has chosen: for each bank's key, and whether it holds any adapter in memory."""

    chosen: Mapping[object, One | Rows | None]
    holding: bool


_NOW: ContextVar[_Now] = ContextVar("lora_med_adapters", default=_Now({}, False))  # noqa: B039 - nobody writes into it


def chosen(key: object) -> One | Rows | None:
    """What the running context has chosen of the bank with this key; None is the bare base."""
    return _NOW.get().chosen.get(key)


def holding() -> bool:
    """Whether the running context keeps any adapter from being evicted."""
    return _NOW.get().holding


@contextmanager
def choose(key: object, choice: One | Rows | None) -> Iterator[None]:
    """Choose, for the running context and the length of the block."""
    now = _NOW.get()
    token = _NOW.set(_Now({**now.chosen, key: choice}, now.holding or choice is not None))
    try:
        yield
    finally:
        _NOW.reset(token)
