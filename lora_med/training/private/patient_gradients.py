"""The gradient of each patient by itself, clipped, and their sum.

One backward pass over rows of several patients gives all of them. The gradient of a matrix is a product over tokens,
and here it is taken over the tokens of each patient. Fused LoRA layers hand over both factors. Linear layers that are
not fused, such as the head of a tagger, are observed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from lora_med.errors import SettingsError
from lora_med.training.private.patient_draws import Pass
from lora_med.training.step.fused_lora import Group

Backward = Callable[[Pass], None]


class SpanGradients:
    """Receives the gradients of all trained matrices in one backward pass, over several spans of tokens each.

    Args:
        linear: linear layers that are trained themselves.
    """

    def __init__(self, linear: Sequence[torch.nn.Linear]) -> None:
        self.linear = linear
        self.spans: Sequence[tuple[int, int]] = ()
        self.received: dict[int, torch.Tensor] = {}

    def multiply(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """`left.T @ right` over each span: shape (spans, outputs, inputs)."""
        return torch.stack([left[start:end].t() @ right[start:end] for start, end in self.spans])

    def take(self, parameter: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add the gradients of a matrix, shape (spans, *its shape)."""
        earlier = self.received.get(id(parameter))
        self.received[id(parameter)] = gradient.float() if earlier is None else earlier + gradient

    def of_group(self, passes: Sequence[Pass], backward: Backward, parameters: Sequence[Any]) -> list[torch.Tensor]:
        """The gradients of the patients of a group, shape (patients, *shape) for each parameter."""
        self.received = {}
        for each in passes:
            self.spans = each.spans
            backward(each)
        patients = len(passes[0].spans)
        received, self.received = self.received, {}
        return [
            received[id(parameter)] if id(parameter) in received else parameter.new_zeros(patients, *parameter.shape)
            for parameter in parameters
        ]

    def watch(self, layer: torch.nn.Linear) -> Any:
        """Let a linear layer give its gradients over spans; returns the hook, to be removed."""

        def look(module: torch.nn.Linear, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            hidden = inputs[0].detach().flatten(0, -2)

            def receive(gradient: torch.Tensor) -> None:
                flat = gradient.flatten(0, -2)
                self.take(module.weight, self.multiply(flat, hidden.to(flat.dtype)))
                if module.bias is not None:
                    self.take(module.bias, self.multiply(flat, flat.new_ones(len(flat), 1)).squeeze(2))

            if output.requires_grad:
                output.register_hook(receive)

        return layer.register_forward_hook(look)


def span_gradients(model: Any, groups: Sequence[Group]) -> SpanGradients:
    """What gives the gradients of several patients in one pass, with these fused layers.

    Raises:
        SettingsError: something is trained that is neither a LoRA layer nor linear.
    """
    remaining = {id(one): name for name, one in model.named_parameters() if one.requires_grad}
    for parameter in (matrix for group in groups for member in group.members for matrix in member.matrices):
        remaining.pop(id(parameter), None)
    linear: list[torch.nn.Linear] = []
    for module in model.modules():
        own = {id(one) for one in module.parameters(recurse=False)}
        if isinstance(module, torch.nn.Linear) and own & remaining.keys():
            linear.append(module)
            for number in own:
                remaining.pop(number, None)
    if remaining:
        name = next(iter(remaining.values()))
        raise SettingsError(
            f"with privacy only LoRA on linear layers and linear heads are trained, and {name} is neither",
            where="lora.target_modules",
            fix="lora.target_modules=all-linear, or leave train.privacy out",
        )
    return SpanGradients(linear)


@contextmanager
def receiving(spans: SpanGradients, groups: Sequence[Group]) -> Iterator[None]:
    """Inside, the fused layers and the linear ones give their gradients to `spans`."""
    before = [group.members for group in groups]
    with ExitStack() as hooks:
        for module in spans.linear:
            hooks.callback(spans.watch(module).remove)
        try:
            for group in groups:
                group.members = tuple(replace(member, receiver=spans) for member in group.members)
            yield
        finally:
            for group, members in zip(groups, before, strict=True):
                group.members = members


def clipped(gradients: Sequence[torch.Tensor], clip: float) -> list[torch.Tensor]:
    """The gradients of patients, each scaled down to the norm `clip` over all parameters, and summed.

    Args:
        gradients: of each parameter, shape (patients, *shape).
    """
    exact = torch.float32 if gradients[0].device.type == "mps" else torch.float64
    flat = [gradient.flatten(1) for gradient in gradients]
    norms = torch.stack([torch.linalg.vector_norm(each, dim=1, dtype=exact) for each in flat]).norm(dim=0)
    factors = (clip / norms).clamp(max=1).to(flat[0].dtype)
    return [(factors @ each).view(gradient.shape[1:]) for each, gradient in zip(flat, gradients, strict=True)]
