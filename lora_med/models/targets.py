"""Which layers of a model get an adapter, and the shapes its tensors must have, checked before PEFT is called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.config.near_names import nearest
from lora_med.errors import SettingsError
from lora_med.models.tagging import tag_head

ALL_LINEAR = "all-linear"
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
    for name, module in model.named_modules():
        if (module is head and not ends) or ".lora_" in name:
            continue
        plain = name.replace(".base_layer", "")
        if isinstance(module, Conv1D):
            inputs, outputs = module.weight.shape
            layers.append(Linear(plain, inputs, outputs, True))
        elif isinstance(module, torch.nn.Linear):
            layers.append(Linear(plain, module.in_features, module.out_features, False))
        elif ends and isinstance(module, torch.nn.Embedding):
            layers.append(Linear(plain, module.num_embeddings, module.embedding_dim, False, embedding=True))
    return layers


def choose_targets(
    model: Any,
    target_modules: str | Sequence[str],
    layers_to_transform: Sequence[int] | None = None,
    *,
    ends: bool = False,
) -> list[Linear]:
    """The linear layers that `target_modules` (leaf names, or "all-linear") and `layers_to_transform` select.

    Args:
        ends: whether they may name the embedding and the output head.

    Raises:
        SettingsError: a name or a layer number that matches nothing; the message gives the nearest name.
    """
    layers = linear_layers(model, ends=ends)
    leaves = sorted({layer.leaf for layer in layers})
    if target_modules == ALL_LINEAR:
        chosen = layers
    else:
        names = [target_modules] if isinstance(target_modules, str) else list(target_modules)
        _refuse_unknown_targets(names, leaves, [layer.name for layer in layers])
        chosen = [layer for layer in layers if any(_ends_in(layer.name, name) for name in names)]
    if layers_to_transform is None:
        return chosen
    numbers = sorted({layer.layer for layer in layers if layer.layer is not None})
    absent = sorted(set(layers_to_transform) - set(numbers))
    if absent or not layers_to_transform:
        raise SettingsError(
            f"layers {absent} are not in this model" if absent else "an empty list of layers",
            where="lora.layers_to_transform",
            fix=f"layers are numbered 0 to {numbers[-1]}" if numbers else "leave it out: the layers have no numbers",
        )
    return [layer for layer in chosen if layer.layer in layers_to_transform]


def _ends_in(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _refuse_unknown_targets(names: Sequence[str], leaves: Sequence[str], full: Sequence[str]) -> None:
    unknown_names = [name for name in names if not any(_ends_in(full_name, name) for full_name in full)]
    if unknown_names or not names:
        near = [f"did you mean {near_name!r}?" for name in unknown_names if (near_name := nearest(name, leaves))]
        raise SettingsError(
            f"no linear layer is named {', '.join(map(repr, unknown_names))}"
            if unknown_names
            else "an empty list of layers",
            where="lora.target_modules",
            fix=" ".join([*near, f"this model has: {', '.join(leaves)}; or all-linear"]),
        )


def pattern_value(patterns: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches the layer's name, by PEFT's rule, else `otherwise`."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return otherwise


def check_patterns(patterns: Mapping[str, Any], targets: Iterable[Linear], where: str) -> None:
    """Refuse a key of rank_pattern or alpha_pattern that matches no adapted layer, or is not a regular expression.

    Raises:
        SettingsError: the message names the key and the nearest layer name.
    """
    names = [layer.name for layer in targets]
    leaves = sorted({name.rpartition(".")[2] for name in names})
    for pattern in patterns:
        try:
            matched = any(re.match(rf"(.*\.)?({pattern})$", name) for name in names)
        except re.error as error:
            raise SettingsError(f"{pattern!r} is not a regular expression: {error}", where=where) from error
        if not matched:
            near = nearest(pattern, leaves)
            raise SettingsError(
                f"pattern {pattern!r} matches no adapted layer",
                where=where,
                fix=f"{f'did you mean {near!r}? ' if near else ''}adapted: {', '.join(leaves)}",
            )
