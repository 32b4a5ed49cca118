"""The linear layers of a model by name, with their sizes and how their weight is stored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lora_med.models.structure.backbone import tag_head

LAYER_NUMBER = re.compile(r".*?\.[^.]*\.(?P<number>\d+)\.")


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer: its name in the model, inputs, outputs, and whether its weight is stored transposed (GPT-2).

    An embedding counts as a layer too; its inputs are the tokens of the vocabulary.
    """

    name: str
    inputs: int
    outputs: int
    transposed: bool
    embedding: bool = False

    @property
    def leaf(self) -> str:
        """The last part of the name, such as `q_proj`."""
        return self.name.rpartition(".")[2]

    @property
    def layer(self) -> int | None:
        """The number of its transformer layer, or None outside the transformer layers."""
        match = LAYER_NUMBER.match(self.name)
        return int(match["number"]) if match else None


def linear_layers(model: Any, *, ends: bool = False) -> list[Linear]:
    """Every linear layer, quantized ones and GPT-2's Conv1D included, in the model's order.

    Args:
        ends: include the token embedding and the output head; we train no adapter on them, but others do.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    tags = tag_head(model)
    head = model.get_output_embeddings() if tags is None else model.get_submodule(tags)
    layers = []
    within = ""  # of the head: PEFT wraps it where tokens are trained
    for name, module in model.named_modules():
        within = f"{name}." if module is head else within
        if (not ends and (module is head or (within and name.startswith(within)))) or ".lora_" in name:
            continue
        plain = name.replace(".token_adapter", "").replace(".base_layer", "")
        if isinstance(module, Conv1D):
            inputs, outputs = module.weight.shape
            layers.append(Linear(plain, inputs, outputs, True))
        elif isinstance(module, torch.nn.Linear):
            layers.append(Linear(plain, module.in_features, module.out_features, False))
        elif ends and isinstance(module, torch.nn.Embedding):
            layers.append(Linear(plain, module.num_embeddings, module.embedding_dim, False, embedding=True))
    return layers
