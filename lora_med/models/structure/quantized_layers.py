"""Which layers of a base transformers puts into 4 or 8 bits while it loads; routed experts are parameters and stay."""

from __future__ import annotations

from typing import Any

from lora_med.models.structure.linear_layers import Linear, linear_layers


def quantized_layers(model: Any) -> list[Linear]:
    """The linear layers of an unquantized model that bitsandbytes quantizes, by transformers' own two rules.

    Left out are the output head, and classes of a model's own that extend a linear layer, such as Llama 4's router.
    """
    import torch
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    left_out = get_keys_to_not_convert(model)
    kinds = {name: type(module) for name, module in model.named_modules()}
    return [
        layer
        for layer in linear_layers(model)
        if should_convert_module(layer.name, left_out)
        and (kinds[layer.name] is torch.nn.Linear or issubclass(kinds[layer.name], Conv1D))
    ]
