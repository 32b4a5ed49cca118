"""LoRA without copies: the layers that read one input become one step of the backward pass.

PEFT adds an adapter by six operations per layer. Each writes a tensor as large as the layer's input or output, and some
are saved for the backward pass: a copy of the input in the adapter's precision, a dropout mask, the scaled update, the
sum. Here the layers that read the same input (query, key and value; gate and up) share one dropout mask and one product
with their stacked A matrices. The update is added in place, and the backward pass sums the gradients of the input in
place. The adapters stay in float32; all products are in the base's precision.

The dropout has PEFT's distribution, but not its random numbers: each layer by itself sees independent draws, and the
layers of a group see the same one.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer
from transformers.pytorch_utils import Conv1D

from lora_med.training.step.dropout_mask import Draw, draw_mask, masked
from lora_med.training.step.task_eval import undisturbed

FEW = 32  # tokens of an evaluation, as in generation: 4-bit products have a kernel of their own for them


class Receiver(Protocol):
    """Takes the gradients of A and B in place of autograd, in any form that it multiplies them in."""

    def multiply(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """`left.T @ right` over the tokens, or over each of several spans of them: shape (..., outputs, inputs)."""
        ...

    def take(self, parameter: torch.Tensor, gradient: torch.Tensor) -> None:
        """Receive the gradient of a matrix."""
        ...


@dataclass(frozen=True)
class Member:
    """One LoRA layer of a group, and its one active adapter; a `receiver` takes the gradients of its matrices."""

    layer: Any
    adapter: str
    receiver: Receiver | None = None

    @property
    def scaling(self) -> float:
        """What B A is multiplied by."""
        return float(self.layer.scaling[self.adapter])

    @property
    def dropout(self) -> float:
        """Share of the inputs dropped while training."""
        return float(getattr(self.layer.lora_dropout[self.adapter], "p", 0.0))

    @property
    def matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A, shape (rank, inputs), and B, shape (outputs, rank)."""
        return self.layer.lora_A[self.adapter].weight, self.layer.lora_B[self.adapter].weight

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """The frozen weight, shape (outputs, inputs); read at each call, as shards are complete only then."""
        base = self.layer.base_layer
        if isinstance(base, Conv1D):
            return base.weight.t().to(dtype)
        # FSDP hands out only the packed numbers; the layer also holds their quantization state.
        state = getattr(base.weight, "quant_state", None) or getattr(base, "quant_state", None)
        if state is not None:
            from bitsandbytes.functional import dequantize_4bit

            return dequantize_4bit(base.weight, state).to(dtype)
        return base.weight.to(dtype)


class _Group(torch.autograd.Function):
    """Outputs of all members for one input, each (tokens, outputs): a model may change none in place that is a view."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, members: tuple[Member, ...], draw: Draw, *matrices: torch.Tensor
    ) -> Any:
        dtype = compute_dtype(inputs, members[0])
        flat = inputs.reshape(-1, inputs.shape[-1]).to(dtype)
        dropout = members[0].dropout if members[0].layer.training else 0.0
        mask = draw(flat, dropout) if dropout else None
        scales = [member.scaling / (1 - dropout) for member in members]
        downs = torch.cat(matrices[::2]).to(dtype)
        ups = [(up * scale).to(dtype) for up, scale in zip(matrices[1::2], scales, strict=True)]
        with torch.autocast(inputs.device.type, enabled=False):
            inner = (flat if mask is None else masked(flat, mask)) @ downs.t()
            ranks = [len(down) for down in matrices[::2]]
            outputs = []
            for member, up, reduced in zip(members, ups, inner.split(ranks, 1), strict=True):
                bias = member.layer.base_layer.bias
                output = torch.nn.functional.linear(
                    flat, member.weight(dtype), None if bias is None else bias.to(dtype)
                )
                outputs.append(output.addmm_(reduced, up.t()))
        ctx.members, ctx.ranks, ctx.scales, ctx.shape = members, ranks, scales, inputs.shape
        ctx.kinds = inputs.dtype, [matrix.dtype for matrix in matrices]
        ctx.save_for_backward(flat, mask, inner, downs, *ups)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        flat, mask, inner, downs, *ups = ctx.saved_tensors
        dtype, receiver = flat.dtype, ctx.members[0].receiver
        multiply = _over_all_tokens if receiver is None else receiver.multiply
        inwards, outer = [], []
        total = None
        for member, up, reduced, scale, gradient in zip(
            ctx.members, ups, inner.split(ctx.ranks, 1), ctx.scales, gradients, strict=True
        ):
            if gradient is None:
                gradient = flat.new_zeros(len(flat), len(up))
            gradient = gradient.to(dtype)
            inwards.append(gradient @ up)
            outer.append(multiply(gradient, reduced).float().mul_(scale))
            if ctx.needs_input_grad[0]:
                weight = member.weight(dtype)
                total = gradient @ weight if total is None else total.addmm_(gradient, weight)
        inward = torch.cat(inwards, 1)
        within = multiply(inward, flat if mask is None else masked(flat, mask))
        if total is not None:
            if mask is None:
                total.addmm_(inward, downs)
            else:
                total.add_(masked(inward @ downs, mask))
            total = total.view(ctx.shape).to(ctx.kinds[0])
        matrices = [matrix for pair in zip(within.split(ctx.ranks, -2), outer, strict=True) for matrix in pair]
        if receiver is not None:
            for parameter, matrix in zip(_matrices(ctx.members), matrices, strict=True):
                receiver.take(parameter, matrix)
            return total, None, None, *([None] * len(matrices))
        return total, None, None, *(matrix.to(kind) for matrix, kind in zip(matrices, ctx.kinds[1], strict=True))


def _over_all_tokens(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left.t() @ right


def _matrices(members: tuple[Member, ...]) -> list[torch.Tensor]:
    return [matrix for member in members for matrix in member.matrices]


def compute_dtype(inputs: torch.Tensor, member: Member) -> torch.dtype:
    """The precision of a layer's products: autocast's where it is on, else that of its weights or 4-bit computation."""
    kind = inputs.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    base = member.layer.base_layer
    return getattr(base, "compute_dtype", None) or base.weight.dtype


class Group:
    """Replaces the `forward` of each member: the first call computes all outputs, the others take theirs."""

    def __init__(self, members: tuple[Member, ...], draw: Draw = draw_mask) -> None:
        self.members = members
        self.draw = draw
        self.source: torch.Tensor | None = None
        self.waiting: dict[int, torch.Tensor] = {}

    def forward(
        self, index: int, original: Callable[..., Any], inputs: torch.Tensor, *rest: Any, **options: Any
    ) -> Any:
        """The output of one member; `original` is PEFT's forward, used for few tokens or other than plain LoRA."""
        member = self.members[index]
        few = not torch.is_grad_enabled() and inputs.shape[:-1].numel() < FEW
        if rest or options or few or not _plain(member.layer):
            return original(inputs, *rest, **options)
        if self.source is inputs and index in self.waiting:
            output = self.waiting.pop(index)
        else:
            outputs: Any = _Group.apply(inputs, self.members, self.draw, *_matrices(self.members))
            shaped = (output.view(*inputs.shape[:-1], -1) for output in outputs)
            self.source, self.waiting = inputs, dict(enumerate(shaped))
            output = self.waiting.pop(index)
        if not self.waiting:
            self.source = None
        return output

    def forget(self) -> None:
        """Drop the waiting outputs of a pass that failed before they were used."""
        self.source, self.waiting = None, {}


def _plain(layer: Any) -> bool:
    """Whether a layer trains exactly one adapter of LoRA's plain form over a frozen weight that can be read."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    base = layer.base_layer
    quantized = type(base).__name__ == "Linear4bit"
    return (
        len(active) == 1
        and not layer.disable_adapters
        and not layer.merged
        and not getattr(layer, "lora_variant", {}).get(active[0])
        and not layer.lora_bias.get(active[0], False)
        and not base.weight.requires_grad
        and (quantized or type(base) in (torch.nn.Linear, Conv1D))
        and not base._forward_hooks
        and not base._forward_pre_hooks
    )


def _fusable(module: Any) -> bool:
    if not isinstance(module, LoraLayer):
        return False
    is_known_type = type(module) is LoraLinear or type(module).__name__ == "Linear4bit"
    if not is_known_type or not _plain(module):
        return False
    (adapter,) = (name for name in module.active_adapters if name in module.lora_A)
    return isinstance(module.lora_dropout[adapter], torch.nn.Dropout | torch.nn.Identity)


@torch.no_grad()
def find_groups(model: Any, draw: Draw = draw_mask) -> list[Group]:
    """The layers of a PeftModel that can be fused; those that read the same tensor form one group.

    The model is run over two tokens and observed. It does not change, and no random number is drawn. A layer that is
    called more than once in a pass, because several blocks share it, stays with PEFT.
    """
    layers = [module for module in model.modules() if _fusable(module)]
    readers: dict[int, list[Any]] = {}
    tensors: list[torch.Tensor] = []  # referenced, so that no two get the same id

    def look(module: Any, inputs: tuple[Any, ...]) -> None:
        tensors.append(inputs[0])
        readers.setdefault(id(inputs[0]), []).append(module)

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with undisturbed(model):
            device = model.get_input_embeddings().weight.device
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    calls = Counter(layer for layers in readers.values() for layer in layers)
    once = [[layer for layer in layers if calls[layer] == 1] for layers in readers.values()]
    return [Group(members, draw) for layers in once for members in _same_dropout(layers)]


def _same_dropout(layers: list[Any]) -> list[tuple[Member, ...]]:
    """Layers that read one tensor, in groups of equal dropout."""
    groups: dict[float, list[Member]] = {}
    for layer in layers:
        (adapter,) = (name for name in layer.active_adapters if name in layer.lora_A)
        member = Member(layer, adapter)
        groups.setdefault(member.dropout, []).append(member)
    return [tuple(members) for members in groups.values()]


@contextlib.contextmanager
def fused_lora(model: Any, draw: Draw = draw_mask) -> Iterator[list[Group]]:
    """Inside, the adapters of a PeftModel work in groups, in training and in evaluation.

    Args:
        draw: draws the dropout masks, as `draw_mask` does.
    """
    groups = find_groups(model, draw)
    changed = []
    for group in groups:
        for index, member in enumerate(group.members):
            original = member.layer.forward
            member.layer.forward = _bound(group, index, original)
            changed.append(member.layer)
    try:
        yield groups
    finally:
        for layer in changed:
            del layer.forward


def _bound(group: Group, index: int, original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(inputs: torch.Tensor, *rest: Any, **options: Any) -> Any:
        return group.forward(index, original, inputs, *rest, **options)

    return forward
