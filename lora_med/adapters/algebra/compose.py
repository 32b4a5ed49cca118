"""Compose one adapter from several, by their exact changes to the base; the card names the parents and the method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.algebra.combine import Combined, combine, joined
from lora_med.adapters.algebra.deltas import BaseWeights, delta_of, expert_deltas, open_base, read_updates
from lora_med.adapters.store.base_data import with_base_data
from lora_med.adapters.store.card import Card, DataFacts, read_card
from lora_med.adapters.store.memorization_bound import inherited
from lora_med.adapters.store.published import AdapterFiles, open_files, shared_chat_template, with_base
from lora_med.adapters.store.store import STORE, check_free, find_adapter, write_adapter
from lora_med.adapters.tensors.contents import LowRank
from lora_med.adapters.tensors.method import PREFIX, Method, exactly
from lora_med.adapters.tensors.weights import check_tensors
from lora_med.config.near_names import unknown
from lora_med.data.access import strictest
from lora_med.errors import BaseMismatchError, SettingsError
from lora_med.models.skeleton import skeleton
from lora_med.run import versions

METHODS = ("linear", "svd", "concat", "ties", "dare")
LARGEST_WEIGHT = 1e6
MOST_SEEDS = 1 << 63


@dataclass(frozen=True)
class Composition:
    """The new adapter's folder and card, and the relative error of the truncation: overall and for each layer."""

    folder: Path
    card: Card
    error: float
    errors: Mapping[str, float]


@dataclass(frozen=True)
class _Parent:
    adapter: AdapterFiles
    weight: float
    updates: Mapping[str, LowRank]

    @property
    def card(self) -> Card:
        """The parent's card."""
        return self.adapter.card


def compose(
    name: str,
    parents: Sequence[tuple[str, float]],
    *,
    method: str = "linear",
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
    base: str | None = None,
    store: Path | str = STORE,
    overwrite: bool = False,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Composition:
    """Publish in the store an adapter whose change of the base combines its parents' changes.

    Args:
        parents: names in the store, each with its weight.
        method: `linear` and `concat` are the exact weighted sum, with the sum of the ranks; `rank` truncates `linear`.
            `svd` is truncated to `rank`, or to the largest rank of the parents. `ties` and `dare` first thin each
            change.
        density: the share of each change that `ties` and `dare` keep.
        base: the location of the base, if it is not the one in the first card. For LoRA only its shapes are read.
        advance: called with the number of finished layers and the total.

    Raises:
        SettingsError: an unknown method, an impossible share or rank, or an adapter that holds more than updates.
        BaseMismatchError: the parents belong to different bases, or `base` is another base.
        OutputError: the name is taken.
    """
    _check_choices(method, rank, density, seed, parents)
    target = check_free(name, store, overwrite=overwrite)
    adapters = [open_files(find_adapter(parent, store)) for parent, _ in parents]
    _check_one_base([adapter.card for adapter in adapters])
    chat_template = shared_chat_template(adapters)
    first = with_base(adapters[0], base)
    folder = first.base
    opened = [
        _Parent(adapter, weight, read_updates(adapter.folder, adapter.contents, base_folder=folder))
        for adapter, (_, weight) in zip(adapters, parents, strict=True)
    ]
    dora = _check_kinds(opened)
    weights = open_base(folder)
    layers = sorted({layer for parent in opened for layer in parent.updates})
    combined: dict[str, Combined] = {}
    for number, layer in enumerate(layers, 1):
        combined[layer] = _combine(layer, opened, weights, method, rank, density, seed + number, dora)
        advance(number, len(layers))
    shape = _method(combined, dora)
    model = skeleton(folder)
    card = _card(name, opened, shape, {"method": method, "rank": rank, "density": density, "seed": seed})
    card = replace(card, data=with_base_data(card.data, first.base_name, folder))

    holders = {stack.name: stack.holder for stack in shape.stacks(model)}
    tensors = _tensors({holders.get(layer, layer): merged for layer, merged in combined.items()}, shape)
    check_tensors(shape.expected(model), tensors, where=target)
    write_adapter(target, card, shape, tensors, model, overwrite=overwrite, chat_template=chat_template)
    errors = {layer: _relative([merged]) for layer, merged in combined.items()}
    return Composition(target, read_card(target), _relative(combined.values()), errors)


def _check_choices(
    method: str, rank: int | None, density: float, seed: int, parents: Sequence[tuple[str, float]]
) -> None:
    if method not in METHODS:
        raise SettingsError(unknown("method", method, METHODS), where="--method")
    if not parents:
        raise SettingsError("no adapter is named", where="--from", fix="for example --from a:0.7 --from b:0.3")
    wrong = next((weight for _, weight in parents if not 0 < abs(weight) <= LARGEST_WEIGHT), None)
    if wrong is not None:
        raise SettingsError(
            f"a weight of {wrong} is not possible", where="--from", fix=f"use a nonzero number up to {LARGEST_WEIGHT:g}"
        )
    if not 0 < density <= 1:
        raise SettingsError(
            f"a density of {density} is not possible", where="--density", fix="use a share above 0, up to 1"
        )
    if not 0 <= seed < MOST_SEEDS:
        raise SettingsError(
            f"a seed of {seed} is not possible", where="--seed", fix="use an integer from 0 to 2^63 - 1"
        )
    if rank is not None and (rank < 1 or method == "concat"):
        raise SettingsError(
            f"rank {rank} with {method} is not possible",
            where="--rank",
            fix="concat keeps all ranks, and a rank is at least 1; --method svd truncates",
        )


def _check_one_base(cards: Sequence[Card]) -> None:
    first = cards[0]
    for other in cards[1:]:
        differing = first.base.fingerprint.differing(other.base.fingerprint)
        if differing:
            lines = [
                f"  {part}: {first.name} needs {getattr(first.base.fingerprint, part)[:16]}, {other.name} needs "
                f"{getattr(other.base.fingerprint, part)[:16]}"
                for part in differing
            ]
            raise BaseMismatchError(
                f"{first.name!r} and {other.name!r} belong to different bases:\n" + "\n".join(lines),
                where="--from",
                fix=f"combine adapters of one base: {first.base.name}",
            )


def _check_kinds(opened: Sequence[_Parent]) -> bool:
    """Whether the new adapter is a DoRA.

    Raises:
        SettingsError: biases together with a DoRA or an embedding update, for which PEFT has no biases; or routed
            experts, for which PEFT has plain LoRA alone, with one of these.
    """
    updates = [update for parent in opened for update in parent.updates.values()]
    dora = any(update.magnitude is not None for update in updates)
    embedding = any("lora_embedding_" in update.down.name for update in updates)
    if (dora or embedding) and any(update.bias is not None for update in updates):
        other = "a DoRA" if dora else "an update of an embedding"
        raise SettingsError(f"{other} cannot be combined with an adapter that adds biases", where="--from")
    if any(update.stack is not None for update in updates) and (dora or any(update.bias for update in updates)):
        other = "a DoRA" if dora else "an adapter that adds biases"
        raise SettingsError(f"{other} cannot be combined with an adapter of routed experts", where="--from")
    return dora


def _combine(
    layer: str,
    opened: Sequence[_Parent],
    weights: BaseWeights,
    method: str,
    rank: int | None,
    density: float,
    seed: int,
    dora: bool,
) -> Combined:
    present = [(parent.weight, parent.updates[layer]) for parent in opened if layer in parent.updates]
    absent = sum(abs(parent.weight) for parent in opened if layer not in parent.updates)
    if present[0][1].stack is not None:
        shares = [share for share, _ in present]
        experts = zip(*(expert_deltas(update) for _, update in present), strict=True)
        expert_changes = [list(zip(shares, deltas, strict=True)) for deltas in experts]
        return joined(
            [
                combine(deltas, None, absent, method, rank, density, seed ^ (number << 32), False)
                for number, deltas in enumerate(expert_changes)
            ]
        )
    weight = weights.read(present[0][1]) if dora else None
    changes = [(share, delta_of(update, weight)) for share, update in present]
    return combine(changes, weight, absent, method, rank, density, seed, dora)


def _relative(layers: Iterable[Combined]) -> float:
    layers = list(layers)
    size = sum(layer.size for layer in layers)
    return math.sqrt(sum(layer.lost for layer in layers) / size) if size else 0.0


def _method(combined: Mapping[str, Combined], dora: bool) -> Method:
    """LoRA at scale 1: in each layer alpha equals the rank."""
    ranks = {layer: merged.rank for layer, merged in combined.items()}
    common_rank = max(sorted(set(ranks.values())), key=list(ranks.values()).count)
    rank_pattern = {exactly(layer): rank for layer, rank in ranks.items() if rank != common_rank}
    return Method(
        r=common_rank,
        lora_alpha=float(common_rank),
        target_modules=tuple(sorted(layer for layer, merged in combined.items() if merged.experts == 1)),
        target_parameters=tuple(sorted(layer for layer, merged in combined.items() if merged.experts > 1)),
        rank_pattern=rank_pattern,
        alpha_pattern={layer: float(rank) for layer, rank in rank_pattern.items()},
        use_dora=dora,
        lora_bias=any(merged.bias is not None for merged in combined.values()),
    )


def _tensors(combined: Mapping[str, Combined], shape: Method) -> dict[str, Any]:
    import torch

    tensors: dict[str, Any] = {}
    for layer, merged in combined.items():
        down, up = ("lora_embedding_A", "lora_embedding_B") if merged.embedding else ("lora_A.weight", "lora_B.weight")
        tensors[f"{PREFIX}{layer}.{down}"], tensors[f"{PREFIX}{layer}.{up}"] = merged.down, merged.up
        if merged.magnitude is not None:
            tensors[f"{PREFIX}{layer}.lora_magnitude_vector"] = merged.magnitude
        if shape.lora_bias and not merged.embedding:
            tensors[f"{PREFIX}{layer}.lora_B.bias"] = (
                merged.bias if merged.bias is not None else torch.zeros(merged.up.shape[0])
            )
    return tensors


def _card(name: str, opened: Sequence[_Parent], shape: Method, options: Mapping[str, Any]) -> Card:
    """The new card: all data sources of the parents, under the strictest of their access classes."""
    first = opened[0].card
    named = [source for parent in opened for source in parent.card.data.source.split("+")]
    earlier = [source for parent in opened for source in parent.card.data.earlier_sources]
    data = DataFacts(
        source="+".join(dict.fromkeys(named)),
        license="; ".join(dict.fromkeys(parent.card.data.license for parent in opened)),
        access=strictest([parent.card.data.access for parent in opened]),
        hashes={
            f"{parent.card.name}: {file}": digest
            for parent in opened
            for file, digest in parent.card.data.hashes.items()
        },
        earlier_sources=list(dict.fromkeys(earlier)),
    )
    parents = [
        {
            "name": parent.card.name,
            "weight": parent.weight,
            "card_sha256": parent.adapter.card_sha256,
            "source": parent.card.data.source,
            "template": parent.card.template,
            "data": parent.card.settings.get("data"),
            "parents": parent.card.parents,
        }
        for parent in opened
    ]
    formula = " + ".join(f"{parent.weight:g} x {parent.card.name}" for parent in opened)
    return Card(
        name=name,
        description=f"{formula} ({options['method']})",
        base=first.base,
        method=shape.as_json(),
        template=first.template,
        data=data,
        settings={"compose": dict(options)},
        scores={},
        versions=versions(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        files={},
        parents=parents,
        memorization=inherited([parent.card for parent in opened]),
    )
