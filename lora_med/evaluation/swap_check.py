"""Swapping adapters on one loaded base: the time, and proof that the restored base is bit-identical."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import use

TEXT = "Background: The study asked whether early treatment lowers the risk of stroke in patients with diabetes."


@dataclass(frozen=True)
class Swap:
    """One adapter activated and deactivated: the time, whether it changed the logits, whether the base returned."""

    adapter: str
    milliseconds: float
    changed: bool
    restored: bool


def check_swaps(pool: AdapterPool, adapters: Sequence[str]) -> tuple[Swap, ...]:
    """Activate and deactivate each adapter, comparing the logits of a fixed text each time.

    Args:
        pool: with the adapters in memory, as `load_many` returns it.
        adapters: names among them.
    """
    model = pool.model
    ids = torch.tensor([pool.base.tokenizer(TEXT)["input_ids"]], device=model.device)

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return model(input_ids=ids, use_cache=False).logits

    with use(pool, None):
        before = logits()
    swaps = []
    for name in adapters:
        started = time.perf_counter()
        with use(pool, name):
            entered = time.perf_counter()
            adapted = logits()
            leaving = time.perf_counter()
        taken = time.perf_counter() - leaving + entered - started
        with use(pool, None):
            after = logits()
        swaps.append(
            Swap(name, 1000 * taken, changed=not torch.equal(before, adapted), restored=torch.equal(before, after))
        )
    return tuple(swaps)
