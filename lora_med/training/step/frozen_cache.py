"""Adapters on the upper layers only: what the layers below give for a row is computed once, and kept.

Below the lowest adapter nothing is trained, so a row comes out of those layers the same in every epoch. It is kept the
first time, and from then on the layers below are stepped over. Up to rounding: a row kept from one batch is used in
another, where its products might have been summed in another order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from lora_med.errors import SettingsError
from lora_med.models.targets import LAYER_NUMBER

SHARE = 0.25  # of the free memory
HEADS_DROP = ("classifier", "summary")  # beginnings of settings for heads that a language model does not have
logger = logging.getLogger(__name__)


def lowest_adapted(model: Any) -> tuple[Any, int] | None:
    """The list of layers, and the number of the lowest that is adapted; None where an adapter stands outside of it."""
    numbers, places = set(), set()
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            found = LAYER_NUMBER.match(f"{name}.")
            if found is None:
                return None
            numbers.add(int(found["number"]))
            places.add(name[: found.start("number") - 1])
    if len(places) != 1:
        return None
    return model.get_submodule(places.pop()), min(numbers)


def why_not_kept(model: Any) -> str | None:
    """Why the layers below cannot be stepped over in this language model, or None if they can."""
    found = lowest_adapted(model)
    if found is None:
        return "an adapter stands outside the numbered layers"
    layers, lowest = found
    if lowest == 0:
        return "the lowest layer is adapted"
    settings = model.config.get_text_config().to_dict()
    by_chance = [f"{name} is {value:g}" for name, value in settings.items() if _drops(name, value)]
    below = [model.get_input_embeddings(), *layers[:lowest]]
    if any(isinstance(one, torch.nn.Dropout) and one.p for module in below for one in module.modules()):
        by_chance.append("a layer below has a dropout")
    if by_chance:
        return f"the base drops values by chance, so a row differs each time: {', '.join(by_chance)}"
    return None


def _drops(name: str, value: Any) -> bool:
    """Whether a setting of a base drops something in its layers: many do so without a module that could be seen."""
    return "drop" in name and not name.startswith(HEADS_DROP) and isinstance(value, float | int) and value > 0


@contextmanager
def no_gradient_below(model: Any) -> Iterator[None]:
    """While training, the gradient of this transformers model ends at the lowest adapter.

    transformers lets it run down to the embedding where layers are recomputed. Only reentrant recomputing needs that,
    and layers below the adapters would be computed a second time for nothing.
    """
    model.disable_input_require_grads()
    model.enable_input_require_grads = lambda: None
    try:
        yield
    finally:
        del model.enable_input_require_grads


def frozen_rows(model: Any, *, apart: bool, whole: bool, free: int) -> FrozenRows:
    """Room for what the layers below the adapters give.

    Args:
        model: the transformers model inside the adapters.
        apart: whether the documents of a batch lie in one row without padding.
        whole: whether each process holds the whole model and all rows.
        free: bytes of memory that are free; a quarter is used.

    Raises:
        SettingsError: rows do not come out of those layers the same each time, or cannot be told apart.
    """
    found = lowest_adapted(model)
    reason = why_not_kept(model)
    if not apart:
        reason = "with this attention batches are padded"
    if not whole:
        reason = "the model is in shards, or its rows are a stream"
    if found is None or reason is not None:
        raise SettingsError(
            f"nothing can be kept: {reason}", where="train.cache_frozen", fix="train.cache_frozen=false"
        )
    layers, lowest = found
    return FrozenRows(layers[:lowest], int(SHARE * free))


class FrozenRows:
    """What comes out below the lowest adapter, for each row of the training set that was seen.

    Args:
        below: the layers below the lowest adapter, in order; `why_not_kept` says None of their model.
        room: bytes that may be kept; further rows are computed each time.
    """

    def __init__(self, below: Iterable[Any], room: int) -> None:
        self.below = list(below)
        self.room = room
        self.held: dict[int, torch.Tensor] = {}

    @contextmanager
    def around(self, rows: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Around a forward pass over one flat batch of rows, by number and tokens: step over, or look and keep."""
        if rows and all(row in self.held for row, _ in rows):
            with self._stepped_over(torch.cat([self.held[row] for row, _ in rows])[None]):
                yield
            return
        seen: list[Any] = []
        hook = self.below[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            yield
        finally:
            hook.remove()
        lengths = [length for _, length in rows]
        if len(seen) == 1 and isinstance(seen[0], torch.Tensor) and seen[0].shape[1] == sum(lengths):
            for (row, _), part in zip(rows, seen[0][0].detach().split(lengths), strict=True):
                self._keep(row, part)

    def _keep(self, row: int, part: torch.Tensor) -> None:
        size = part.numel() * part.element_size()
        if row in self.held or self.room <= 0:
            return
        if size > self.room:
            logger.info("%d rows are kept below the adapters; there is no room for more", len(self.held))
            self.room = 0
            return
        self.room -= size
        self.held[row] = part.clone()

    @contextmanager
    def _stepped_over(self, given: torch.Tensor) -> Iterator[None]:
        *lower, last = self.below
        try:
            for layer in lower:
                layer.forward = _passed
            last.forward = lambda hidden, *rest, **options: given.to(hidden.device)
            yield
        finally:
            for layer in self.below:
                layer.__dict__.pop("forward", None)


def _passed(hidden: Any, *rest: Any, **options: Any) -> Any:
    return hidden
