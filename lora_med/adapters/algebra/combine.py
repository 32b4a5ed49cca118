"""Combine the deltas of several adapters: a weighted sum, or one thinned by TIES or DARE, truncated to a rank.

The sum of LoRAs is a LoRA, and the sum of DoRAs is a DoRA. Its rank is the sum of the ranks, and it is exact in fp64.
With g = 1 + sum of w_i (f_i - 1), the merged weight is g * (W + sum of w_i f_i / g * B_i A_i).

TIES: Yadav et al. 2023, arXiv 2306.01708. DARE: Yu et al. 2023, arXiv 2311.03099.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.adapters.algebra.deltas import Delta
from lora_med.adapters.tensors.expert_update import joined_factors
from lora_med.adapters.tensors.weight_update import row_factor
from lora_med.errors import SettingsError

DENSE = ("ties", "dare")
EXACT_SIDE = 1500  # up to this width a dense delta gets a full singular value decomposition


@dataclass(frozen=True)
class Combined:
    """One layer of the new adapter, fp32: `up` (outputs, r), `down` (r, inputs), scale 1; `magnitude` for DoRA.

    `lost` is the squared Frobenius norm of the part that the truncation lost; `size` is that of the full change. Of
    several `experts`, `up` and `down` hold all factors in PEFT's order, each expert's of rank `rank`.
    """

    up: Any
    down: Any
    magnitude: Any
    bias: Any
    embedding: bool
    lost: float
    size: float
    experts: int = 1

    @property
    def rank(self) -> int:
        """The rank of the layer's update, or of each expert's."""
        return self.up.shape[1] // self.experts


def joined(experts: Sequence[Combined]) -> Combined:
    """The combined updates of a layer's routed experts, as one update of their parameter."""
    up, down = (torch.stack([getattr(expert, part) for expert in experts]) for part in ("up", "down"))
    lost, size = (sum(getattr(expert, part) for expert in experts) for part in ("lost", "size"))
    return Combined(*joined_factors(up, down), None, None, False, lost, size, len(experts))


def combine(
    deltas: Sequence[tuple[float, Delta]],
    weight: Any,
    absent: float,
    method: str,
    rank: int | None,
    density: float,
    seed: int,
    dora: bool,
) -> Combined:
    """The combination of the deltas of one layer by a method of `compose`.

    Args:
        absent: the sum of the weights of the adapters that do not change this layer.
    """
    with torch.no_grad():
        if method not in DENSE:
            wanted = max(delta.up.shape[1] for _, delta in deltas) if method == "svd" and rank is None else rank
            return weighted_sum(deltas, weight, wanted, dora)
        dense = [(share, delta.dense(weight)) for share, delta in deltas]
        change = ties(dense, density, absent) if method == "ties" else dare(dense, density, seed)
        wanted = rank or max(delta.up.shape[1] for _, delta in deltas)
        return of_dense(change, deltas, weight, min(wanted, *change.shape), dora, seed)


def weighted_sum(deltas: Sequence[tuple[float, Delta]], weight: Any, rank: int | None, dora: bool) -> Combined:
    """The layer whose change of the base is the weighted sum of the deltas.

    Args:
        weight: the base's weight (outputs, inputs), for DoRA.
        rank: None keeps the sum of the ranks, which is exact.
        dora: whether the new adapter is a DoRA.

    Raises:
        SettingsError: the weights scale an output by zero or less, which a DoRA cannot represent.
    """
    own_share = _own_share(deltas)
    ups = [
        share * ((1 if delta.factor is None else delta.factor) / own_share)[:, None] * delta.up
        for share, delta in deltas
    ]
    up, down = torch.cat(ups, 1), torch.cat([delta.down for _, delta in deltas])
    change = sum(share * delta.dense(weight) for share, delta in deltas)
    if rank is not None and rank < up.shape[1]:
        up, down = _cut_product(up, down, rank)
    return _finished(up, down, change, weight, deltas, dora)


def of_dense(
    change: Any, deltas: Sequence[tuple[float, Delta]], weight: Any, rank: int, dora: bool, seed: int
) -> Combined:
    """The layer of rank `rank` that is nearest to the dense `change` (outputs, inputs).

    For a DoRA each output is scaled first, as in the plain sum. A single DoRA then keeps its own rank.
    """
    if dora:
        up, down = _cut_dense((weight + change) / _own_share(deltas)[:, None] - weight, rank, seed)
    else:
        up, down = _cut_dense(change, rank, seed)
    return _finished(up, down, change, weight, deltas, dora)


def _own_share(deltas: Sequence[tuple[float, Delta]]) -> Any:
    """The factor by which the sum of the deltas scales the base's weights, for each output; 1 where none is a DoRA."""
    own_share = torch.ones(deltas[0][1].up.shape[0], dtype=torch.float64)
    for share, delta in deltas:
        own_share += 0 if delta.factor is None else share * (delta.factor - 1)
    if bool((own_share <= 0).any()):
        raise SettingsError(
            "these weights scale an output of a DoRA by zero or less", where="--from", fix="use smaller weights"
        )
    return own_share


def ties(deltas: Sequence[tuple[float, Any]], density: float, absent: float = 0) -> Any:
    """TIES: the largest share `density` of each dense delta by absolute value, then the mean of the majority sign.

    The mean is weighted and scaled to the sum of the weights: a value that only one delta has counts in full.

    Args:
        absent: the sum of the weights of adapters that do not change this layer. They have no vote on the sign, but
            count in the sum.
    """
    largest = [share * _largest(delta, density) for share, delta in deltas]
    side = torch.sign(torch.stack(largest).sum(0))
    agreeing = [torch.where(torch.sign(delta) == side, delta, 0) for delta in largest]
    shares = torch.stack([abs(share) * (delta != 0) for (share, _), delta in zip(deltas, agreeing, strict=True)]).sum(0)
    total = absent + sum(abs(share) for share, _ in deltas)
    return torch.stack(agreeing).sum(0) * torch.where(shares > 0, total / shares.clamp_min(1e-300), 0)


def dare(deltas: Sequence[tuple[float, Any]], density: float, seed: int) -> Any:
    """DARE: a random share `density` of each dense delta, rescaled by 1 / density, summed."""
    draw = torch.Generator().manual_seed(seed)
    masks = [torch.rand(delta.shape, generator=draw) < density for _, delta in deltas]
    scaled = [share * delta * mask / density for (share, delta), mask in zip(deltas, masks, strict=True)]
    return torch.stack(scaled).sum(0)


def _largest(delta: Any, density: float) -> Any:
    count = max(1, round(density * delta.numel()))
    if count >= delta.numel():
        return delta
    edge = delta.abs().flatten().kthvalue(delta.numel() - count + 1).values
    return torch.where(delta.abs() >= edge, delta, 0)


def _cut_product(up: Any, down: Any, rank: int) -> tuple[Any, Any]:
    """The nearest product of rank `rank`, by the singular value decomposition of a product of two thin factors."""
    left, inner_left = torch.linalg.qr(up)
    right, inner_right = torch.linalg.qr(down.T)
    rotate, values, turn = torch.linalg.svd(inner_left @ inner_right.T)
    root = values[:rank].sqrt()
    return (left @ rotate[:, :rank]) * root, root[:, None] * (turn[:rank] @ right.T)


def _cut_dense(delta: Any, rank: int, seed: int) -> tuple[Any, Any]:
    if min(delta.shape) <= EXACT_SIDE:
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            left, values, turned = torch.svd_lowrank(delta, q=min(rank + 16, *delta.shape), niter=4)
        right = turned.T
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _finished(
    up: Any, down: Any, change: Any, weight: Any, deltas: Sequence[tuple[float, Delta]], dora: bool
) -> Combined:
    """The layer as it will be stored, with the error of the stored values."""
    stored_up, stored_down = up.float().contiguous(), down.float().contiguous()
    product = stored_up.double() @ stored_down.double()
    magnitude = None
    if dora:
        magnitude = (weight + change).norm(dim=1).float()
        product = row_factor(magnitude.double(), (weight + product).norm(dim=1))[:, None] * (weight + product) - weight
    biases = [share * delta.bias for share, delta in deltas if delta.bias is not None]
    return Combined(
        stored_up,
        stored_down,
        magnitude,
        torch.stack(biases).sum(0).float() if biases else None,
        deltas[0][1].embedding,
        float((product - change).square().sum()),
        float(change.square().sum()),
    )
