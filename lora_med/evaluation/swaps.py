"""Swapping adapters on one loaded base: how long it takes, and proof that leaving restores the base to the bit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.adapters.swap import use
from lora_med.models.base import Base

TEXT = "Background: The study asked whether early treatment lowers the risk of stroke in patients with diabetes."


@dataclass(frozen=True)
class Swap:
    """One adapter put on and taken off: the time of both, whether it moved the logits, whether the base came back."""

    adapter: str
    milliseconds: float
    changed: bool
    restored: bool


def check_swaps(base: Base, model: Any, adapters: Sequence[str]) -> tuple[Swap, ...]:
    """Put each adapter on and take it off in turn, comparing the logits of a fixed text each time.

    Args:
        base: as `load_base` gave it.
        model: the base with the adapters attached, as `load_many` gave it.
        adapters: names among those attached.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([base.tokenizer(TEXT)["input_ids"]], device=device)

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return model(input_ids=ids, use_cache=False).logits

    with use(model, None):
        before = logits()
    found = []
    for name in adapters:
        begun = time.perf_counter()
        with use(model, name):
            entered = time.perf_counter()
            adapted = logits()
            leaving = time.perf_counter()
        taken = time.perf_counter() - leaving + entered - begun
        with use(model, None):
            after = logits()
        found.append(
            Swap(name, 1000 * taken, changed=not torch.equal(before, adapted), restored=torch.equal(before, after))
        )
    return tuple(found)
