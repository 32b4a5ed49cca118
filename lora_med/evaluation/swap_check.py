"""Swapping adapters on one loaded base: how long it takes, and proof that leaving restores the base to the bit."""

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
    """One adapter put on and taken off: the time of both, whether it moved the logits, whether the base came back."""

    adapter: str
    milliseconds: float
    changed: bool
    restored: bool


def check_swaps(pool: AdapterPool, adapters: Sequence[str]) -> tuple[Swap, ...]:
    """Put each adapter on and take it off in turn, comparing the logits of a fixed text each time.

    Args:
        bank: with the adapters in memory, as `load_many` gives it.
        adapters: names among them.
    """
    model = pool.model
    ids = torch.tensor([pool.base.tokenizer(TEXT)["input_ids"]], device=model.device)

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return model(input_ids=ids, use_cache=False).logits

    with use(pool, None):
        before = logits()
    found = []
    for name in adapters:
        begun = time.perf_counter()
        with use(pool, name):
            entered = time.perf_counter()
            adapted = logits()
            leaving = time.perf_counter()
        taken = time.perf_counter() - leaving + entered - begun
        with use(pool, None):
            after = logits()
        found.append(
            Swap(name, 1000 * taken, changed=not torch.equal(before, adapted), restored=torch.equal(before, after))
        )
    return tuple(found)
