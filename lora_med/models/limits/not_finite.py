"""A model whose logits are not finite: it gives an error that names the layer, and no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lora_med.errors import DivergedError


def first_layer(model: Any, ids: Sequence[int]) -> str | None:
    """The first layer, in the order of the forward pass, whose output for these tokens holds NaN or infinity.

    None where no layer's does, and with several processes, which would have to run the model together.
    """
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return None
    found: list[str] = []

    def hook_of(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            value: Any = output[0] if isinstance(output, tuple) and output else output
            numbers = not found and isinstance(value, torch.Tensor) and value.is_floating_point()
            if numbers and not bool(torch.isfinite(value).all()):
                found.append(name)

        return hook

    layers = [(name, module) for name, module in model.named_modules() if name and not any(module.children())]
    handles = [module.register_forward_hook(hook_of(name)) for name, module in layers]
    try:
        with torch.inference_mode():
            model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def not_finite(model: Any, ids: Sequence[int], what: str) -> DivergedError:
    """The error for a model that gives NaN or infinity for these tokens.

    Args:
        what: what was being computed, such as "the next token".
    """
    layer = first_layer(model, ids)
    place = f"the first output that is not finite is that of layer {layer!r}" if layer else "no single layer gives it"
    return DivergedError(
        f"the model gives NaN or infinity for {what}; {place}",
        where=str(getattr(model, "name_or_path", "") or "the model"),
        fix="if that is an adapter's layer, train the adapter again; if not, copy the base again, or use another dtype",
    )


def finite_logits(model: Any, pad: int) -> Any:
    """A LogitsProcessor that changes nothing and stops at logits without a finite maximum.

    Raises:
        DivergedError: it names the layer.
    """
    import torch
    from transformers import LogitsProcessor

    class FiniteLogits(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            finite = torch.isfinite(scores.amax(dim=-1))
            if not bool(finite.all()):
                row = input_ids[int((~finite).nonzero()[0])].tolist()
                raise not_finite(model, [token for token in row if token != pad] or row, "the next token")
            return scores

    return FiniteLogits()
