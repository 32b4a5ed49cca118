"""Compare two adapters of one base layer by layer: the norms of their changes, and the cosine between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.algebra.deltas import BaseWeights, Delta, delta_of, expert_deltas, open_base, read_updates
from lora_med.adapters.store.published import open_files, with_base
from lora_med.adapters.tensors.contents import LowRank
from lora_med.adapters.tensors.expert_contents import updates_experts
from lora_med.errors import BaseMismatchError


@dataclass(frozen=True)
class LayerDiff:
    """One layer: Frobenius norms of both changes and of their difference, and the cosine between the changes.

    If an adapter has no update of the layer, its norm is 0 and the cosine is None.
    """

    layer: str
    first: float
    second: float
    difference: float
    cosine: float | None


@dataclass(frozen=True)
class Diff:
    """The comparison: every layer that either adapter changes, sorted by name; `whole` covers all layers together."""

    first: str
    second: str
    layers: tuple[LayerDiff, ...]
    whole: LayerDiff


def diff(first: Path, second: Path, *, base: str | None = None) -> Diff:
    """Compare two adapter folders of one base by their exact changes of its weights.

    Args:
        base: the location of the base, if it is not the one in the card; needed only for DoRA and routed experts.

    Raises:
        BaseMismatchError: they belong to different bases.
        SettingsError: an adapter holds more than updates of layers.
        IntegrityError: a file differs from the published one.
    """
    adapters = [open_files(folder) for folder in (first, second)]
    cards = [adapter.card for adapter in adapters]
    if cards[0].base.fingerprint != cards[1].base.fingerprint:
        raise BaseMismatchError(
            f"{cards[0].name!r} and {cards[1].name!r} belong to different bases, so their changes cannot be compared",
            fix=f"{cards[0].name}: {cards[0].base.name}; {cards[1].name}: {cards[1].base.name}",
        )
    folder = with_base(adapters[0], base).base if any(updates_experts(adapter.config) for adapter in adapters) else None
    updates = [read_updates(adapter.folder, adapter.contents, base_folder=folder) for adapter in adapters]
    dora = any(update.magnitude is not None for layers in updates for update in layers.values())
    weights = open_base(with_base(adapters[0], base).base) if dora else None
    layers = sorted({*updates[0], *updates[1]}, key=_natural)
    products = [_products(layer, updates, weights) for layer in layers]
    layer_diffs = tuple(_layer(layer, *inner_products) for layer, inner_products in zip(layers, products, strict=True))
    overall = _layer("all", *(sum(inner_products[number] for inner_products in products) for number in range(3)))
    return Diff(cards[0].name, cards[1].name, layer_diffs, overall)


def _natural(layer: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in layer.split(".")]


def _products(
    layer: str, updates: Iterable[Mapping[str, LowRank]], weights: BaseWeights | None
) -> tuple[float, float, float]:
    """<a, a>, <b, b> and <a, b> of the two changes of a layer."""
    pair = [layers.get(layer) for layers in updates]
    if any(update is not None and update.stack is not None for update in pair):
        return _expert_products(pair)
    weight = None
    if weights is not None and any(update is not None and update.magnitude is not None for update in pair):
        weight = weights.read(next(update for update in pair if update is not None))
    first, second = (None if update is None else delta_of(update, weight) for update in pair)
    return _inner(first, first, weight), _inner(second, second, weight), _inner(first, second, weight)


def _expert_products(pair: Iterable[LowRank | None]) -> tuple[float, float, float]:
    """The same, summed over the routed experts of a layer."""
    first, second = ([] if update is None else expert_deltas(update) for update in pair)
    return (
        sum(_inner(delta, delta, None) for delta in first),
        sum(_inner(delta, delta, None) for delta in second),
        sum(_inner(delta, other, None) for delta, other in zip(first, second, strict=bool(first and second))),
    )


def _inner(first: Delta | None, second: Delta | None, weight: Any) -> float:
    if first is None or second is None:
        return 0.0
    if first.factor is None and second.factor is None:  # tr((B1 A1)^T B2 A2), without either product
        return float(((first.up.T @ second.up) * (first.down @ second.down.T)).sum())
    return float((first.dense(weight) * second.dense(weight)).sum())


def _layer(layer: str, first: float, second: float, both: float) -> LayerDiff:
    cosine = both / math.sqrt(first * second) if first > 0 and second > 0 else None
    difference = max(0.0, first + second - 2 * both)
    return LayerDiff(layer, math.sqrt(first), math.sqrt(second), math.sqrt(difference), cosine)
