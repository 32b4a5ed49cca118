"""Adapters on the upper layers only: the output of the layers below is computed once per row, and cached.

Below the lowest adapter nothing is trained, so those layers give the same output for a row in every epoch. It is cached
the first time; from then on the layers below are skipped. Equal up to rounding: a row cached from one batch is used in
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
from lora_med.models.structure.linear_layers import LAYER_NUMBER

SHARE = 0.25  # of the free memory
HEADS_DROP = ("classifier", "summary")  # beginnings of settings for heads that a language model does not have
logger = logging.getLogger(__name__)


def lowest_adapted(model: Any) -> tuple[Any, int] | None:
    """The list of layers, and the number of the lowest adapted one; None where an adapter is outside that list."""
    numbers, lists = set(), set()
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            match = LAYER_NUMBER.match(f"{name}.")
            if match is None:
                return None
            numbers.add(int(match["number"]))
            lists.add(name[: match.start("number") - 1])
    if len(lists) != 1:
        return None
    return model.get_submodule(lists.pop()), min(numbers)


def why_not_cached(model: Any) -> str | None:
    """Why the layers below cannot be skipped in this language model, or None if they can."""
    adapted = lowest_adapted(model)
    if adapted is None:
        return "an adapter is outside the numbered layers"
    layers, lowest = adapted
    if lowest == 0:
        return "the lowest layer is adapted"
    settings = model.config.get_text_config().to_dict()
    random_settings = [f"{name} is {value:g}" for name, value in settings.items() if _drops(name, value)]
    below = [model.get_input_embeddings(), *layers[:lowest]]
    if any(parameter.requires_grad for parameter in below[0].parameters()):
        return "rows of the embedding are trained (lora.trainable_tokens)"
    if any(isinstance(module, torch.nn.Dropout) and module.p for layer in below for module in layer.modules()):
        random_settings.append("a layer below has a dropout")
    if random_settings:
        return f"the base drops values at random, so a row differs each time: {', '.join(random_settings)}"
    return None


def _drops(name: str, value: Any) -> bool:
    """Whether a setting of a base is a dropout in its layers; many families apply it without a visible module."""
    return "drop" in name and not name.startswith(HEADS_DROP) and isinstance(value, float | int) and value > 0


@contextmanager
def no_gradient_below(model: Any) -> Iterator[None]:
    """While training, the gradient of this transformers model ends at the lowest adapter.

    transformers extends it to the embedding where layers are recomputed. Only reentrant recomputation needs that. The
    layers below the adapters would be computed a second time without use.
    """
    model.disable_input_require_grads()
    model.enable_input_require_grads = lambda: None
    try:
        yield
    finally:
        del model.enable_input_require_grads


def frozen_rows(model: Any, *, unpadded: bool, complete: bool, free: int) -> FrozenRows:
    """A cache for the outputs of the layers below the adapters.

    Args:
        model: the transformers model inside the adapters.
        unpadded: whether the documents of a batch are in one row without padding.
        complete: whether each process holds the complete model and all rows.
        free: bytes of memory that are free; a quarter is used.

    Raises:
        SettingsError: the outputs of those layers differ each time, or cannot be assigned to rows.
    """
    adapted = lowest_adapted(model)
    reason = why_not_cached(model)
    if not unpadded:
        reason = "with this attention batches are padded"
    if not complete:
        reason = "the model is in shards, or its rows are a stream"
    if adapted is None or reason is not None:
        raise SettingsError(
            f"nothing can be cached: {reason}", where="train.cache_frozen", fix="train.cache_frozen=false"
        )
    layers, lowest = adapted
    return FrozenRows(layers[:lowest], int(SHARE * free))


class FrozenRows:
    """The cached outputs of the layers below the lowest adapter, for each training row that was computed.

    Args:
        below: the layers below the lowest adapter, in order; `why_not_cached` returns None for their model.
        free_bytes: bytes that may be used; further rows are computed each time.
    """

    def __init__(self, below: Iterable[Any], free_bytes: int) -> None:
        self.below = list(below)
        self.free_bytes = free_bytes
        self.cached: dict[int, torch.Tensor] = {}

    @contextmanager
    def around(self, rows: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Around a forward pass over one flat batch of rows, by number and tokens: use the cache, or fill it."""
        if rows and all(row in self.cached for row, _ in rows):
            with self._skipped(torch.cat([self.cached[row] for row, _ in rows])[None]):
                yield
            return
        outputs: list[Any] = []
        hook = self.below[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
        try:
            yield
        finally:
            hook.remove()
        lengths = [length for _, length in rows]
        if len(outputs) == 1 and isinstance(outputs[0], torch.Tensor) and outputs[0].shape[1] == sum(lengths):
            for (row, _), hidden in zip(rows, outputs[0][0].detach().split(lengths), strict=True):
                self._store(row, hidden)

    def _store(self, row: int, hidden: torch.Tensor) -> None:
        size = hidden.numel() * hidden.element_size()
        if row in self.cached or self.free_bytes <= 0:
            return
        if size > self.free_bytes:
            logger.info("train.cache_frozen: %d rows are cached; the memory for the cache is used up", len(self.cached))
            self.free_bytes = 0
            return
        self.free_bytes -= size
        self.cached[row] = hidden.clone()

    @contextmanager
    def _skipped(self, outputs: torch.Tensor) -> Iterator[None]:
        *lower, last = self.below
        try:
            for layer in lower:
                layer.forward = _passed
            last.forward = lambda hidden, *rest, **options: outputs.to(hidden.device)
            yield
        finally:
            for layer in self.below:
                layer.__dict__.pop("forward", None)


def _passed(hidden: Any, *rest: Any, **options: Any) -> Any:
    return hidden
