"""Routed experts with the running context's adapter: a forward pass reads weights that are folded for that pass alone.

The module and its parameters do not change. So threads may run different adapters on one model at once, as with layers.
PEFT folds the weights of all experts in each pass too, and by the same product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lora_med.models.structure.expert_stacks import ExpertStack

USERS = "lora_med_expert_users"  # attribute of a module: how many pools have replaced its forward
Folds = Callable[[Any], Mapping[str, "StackUpdate"]]


@dataclass(frozen=True, eq=False)
class StackUpdate:
    """One adapter's update of a stack of experts: `scale * left @ right` of each, as the model stores them."""

    left: torch.Tensor
    right: torch.Tensor
    scale: float

    def added_to(self, weights: torch.Tensor) -> torch.Tensor:
        """The weights of all experts with the update."""
        return torch.baddbmm(weights, self.left.to(weights.dtype), self.right.to(weights.dtype), alpha=self.scale)


def stack_update(stack: ExpertStack, down: torch.Tensor, up: torch.Tensor, scale: float) -> StackUpdate:
    """The update from A and B as PEFT stores them: all experts in two matrices."""
    inner = down.reshape(stack.experts, -1, down.shape[-1])
    outer = up.reshape(len(up), -1, stack.experts).permute(2, 0, 1)
    return StackUpdate(inner.mT, outer.mT, scale) if stack.transposed else StackUpdate(outer, inner, scale)


@dataclass(frozen=True)
class ExpertForward:
    """The replaced forward of a module of experts, until every pool has called `remove`."""

    module: Any

    def remove(self) -> None:
        """Take one pool away; after the last one the module is as it was."""
        users = self.module.__dict__[USERS] - 1
        if users:
            self.module.__dict__[USERS] = users
            return
        del self.module.__dict__[USERS], self.module.__dict__["forward"]


def replace_forward(module: Any, updates: Folds) -> ExpertForward:
    """Let a module of experts run with the updates that `updates(module)` returns at each call: parameter -> update."""
    users = module.__dict__.get(USERS, 0)
    module.__dict__[USERS] = users + 1
    if not users:

        def forward(*arguments: Any, **options: Any) -> Any:
            chosen = updates(module)
            run = type(module).forward
            if not chosen:
                return run(module, *arguments, **options)
            twin = copy.copy(module)
            folded = {name: update.added_to(module._parameters[name]) for name, update in chosen.items()}
            twin.__dict__["_parameters"] = {**module._parameters, **folded}
            return run(twin, *arguments, **options)

        module.__dict__["forward"] = forward
    return ExpertForward(module)
