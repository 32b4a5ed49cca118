"""Which linear layers an adapter is trained on: those that text passes through and that PEFT runs as layers.

By the model's own structure, not by class of layer: nothing of a vision or audio tower, a projector, or a router; of a
state-space mixer only its first product. Its kernels read the other weights directly and would skip an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.models.structure.backbone import language_part
from lora_med.models.structure.expert_stacks import ExpertStack, expert_stacks
from lora_med.models.structure.linear_layers import Linear, linear_layers

ROUTERS = ("router", "gate", "shared_expert_gate")
OTHER_MODALITY, ROUTER, STATE_SPACE = (
    "text does not pass through them",
    "they choose experts",
    "a state-space kernel reads their weights directly",
)


def layers_left_out(model: Any) -> Mapping[str, Sequence[Linear]]:
    """The linear layers that no adapter is trained on, by the reason; the output head is not among them."""
    reasons = reasons_left_out(model)
    result: dict[str, list[Linear]] = {}
    for layer in linear_layers(model):
        if layer.name in reasons:
            result.setdefault(reasons[layer.name], []).append(layer)
    return result


def adaptable_layers(model: Any) -> list[Linear]:
    """The linear layers that an adapter may be on, in the model's order."""
    reasons = reasons_left_out(model)
    return [layer for layer in linear_layers(model) if layer.name not in reasons]


def share_reached(model: Any, layers: Sequence[Linear] | None = None, stacks: Sequence[ExpertStack] = ()) -> float:
    """The share of a language model's weights that are in the layers and stacks given, from 0 to 1.

    Its embedding and head count among the weights; a vision or audio tower does not.

    Args:
        layers: those adapted; None takes all that an adapter may be on.
        stacks: the routed experts that are adapted.
    """
    language = language_part(model)
    every = linear_layers(model)
    linear = sum(
        layer.inputs * layer.outputs for layer in every if not language or layer.name.startswith(f"{language}.")
    )
    names = {f"{layer.name}.weight" for layer in every}
    others = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if ".lora_" not in name and name.replace(".base_layer", "") not in names and name.startswith(language)
    )
    reached = adaptable_layers(model) if layers is None else layers
    numbers = sum(layer.inputs * layer.outputs for layer in reached) + sum(stack.numbers for stack in stacks)
    return numbers / (linear + others)


def describe_reach(model: Any, layers: Sequence[Linear], stacks: Sequence[ExpertStack] = ()) -> str:
    """One line for a run's log: how much of the model an adapter on these layers reaches, and what it leaves out."""
    reached = f"{len(layers)} layers" + (f" and {len(stacks)} stacks of routed experts" if stacks else "")
    parts = [f"{reached} with {share_reached(model, layers, stacks):.0%} of the language model's weights"]
    for reason, absent in layers_left_out(model).items():
        kinds = sorted({re.sub(r"\b\d+\b", "N", layer.name) for layer in absent})
        shown = ", ".join(kinds[:2]) + (f" and {len(kinds) - 2} more kinds" if len(kinds) > 2 else "")
        parts.append(f"left out: {len(absent)} layers, because {reason} ({shown})")
    adapted = {stack.name for stack in stacks}
    left = [stack for stack in expert_stacks(model) if stack.name not in adapted]
    if left:
        share = share_reached(model, (), left)
        parts.append(
            f"left out: the routed experts ({len(left)} tensors, {share:.0%} of the weights); "
            "lora.target_experts=true adapts them"
        )
    return "; ".join(parts)


def reasons_left_out(model: Any) -> dict[str, str]:
    """Layer name -> why no adapter is trained on it."""
    modules = {name.replace(".base_layer", ""): module for name, module in model.named_modules()}
    language = language_part(model)
    reasons = {}
    for layer in linear_layers(model):
        reason = _reason(layer.name, modules, language)
        if reason is not None:
            reasons[layer.name] = reason
    return reasons


def _reason(name: str, modules: Mapping[str, Any], language: str) -> str | None:
    if language and not name.startswith(f"{language}."):
        return OTHER_MODALITY
    steps = name.split(".")
    for length in range(1, len(steps)):
        parent, child = modules.get(".".join(steps[:length])), steps[length]
        if language and hasattr(parent, "cross_attn"):
            return OTHER_MODALITY  # a layer that runs only if there is an image
        if child in ROUTERS and (child != "gate" or hasattr(parent, "experts")):
            return ROUTER
        if hasattr(parent, "A_log") and hasattr(parent, "D") and not child.startswith("in_proj"):
            return STATE_SPACE
    return None
