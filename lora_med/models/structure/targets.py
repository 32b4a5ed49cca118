"""Which layers of a model get an adapter, and the shapes its tensors must have, checked before PEFT is called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.config.near_names import nearest
from lora_med.errors import SettingsError
from lora_med.models.structure.adaptable_layers import adaptable_layers, reasons_left_out
from lora_med.models.structure.exclusion import ends_in
from lora_med.models.structure.linear_layers import Linear, linear_layers

ALL_LINEAR = "all-linear"


def choose_targets(
    model: Any,
    target_modules: str | Sequence[str],
    layers_to_transform: Sequence[int] | None = None,
    *,
    anywhere: bool = False,
    exclude: str | None = None,
) -> list[Linear]:
    """The linear layers that `target_modules` (leaf names, or "all-linear") and `layers_to_transform` select.

    Args:
        anywhere: whether they may name any layer: the embedding, the output head, and those that we train none on.
        exclude: a pattern of names to leave out, which PEFT calls `exclude_modules`.

    Raises:
        SettingsError: a name or a layer number that matches nothing; the message gives the nearest name.
    """
    layers = linear_layers(model, ends=True) if anywhere else adaptable_layers(model)
    leaves = sorted({layer.leaf for layer in layers})
    if target_modules == ALL_LINEAR:
        chosen = layers
    else:
        names = [target_modules] if isinstance(target_modules, str) else list(target_modules)
        _refuse_unknown_targets(
            names, leaves, [layer.name for layer in layers], {} if anywhere else reasons_left_out(model)
        )
        chosen = [layer for layer in layers if any(ends_in(layer.name, name) for name in names)]
    if exclude is not None:
        chosen = [layer for layer in chosen if not re.fullmatch(exclude, layer.name)]
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


def _refuse_unknown_targets(
    names: Sequence[str], leaves: Sequence[str], full: Sequence[str], left_out: Mapping[str, str]
) -> None:
    unknown_names = [name for name in names if not any(ends_in(full_name, name) for full_name in full)]
    if not unknown_names and names:
        return
    near = [f"did you mean {near_name!r}?" for name in unknown_names if (near_name := nearest(name, leaves))]
    what = f"no linear layer is named {', '.join(map(repr, unknown_names))}" if names else "an empty list of layers"
    reason = next(
        (why for name in unknown_names for full_name, why in left_out.items() if ends_in(full_name, name)), ""
    )
    if reason:
        what, near = f"no adapter is trained on the layers named {', '.join(map(repr, unknown_names))}: {reason}", []
    raise SettingsError(
        what,
        where="lora.target_modules",
        fix=" ".join([*near, f"this model has: {', '.join(leaves)}; or all-linear"]),
    )


def pattern_value(patterns: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches the layer's name, by PEFT's rule, else `otherwise`."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return otherwise


def check_patterns(patterns: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    """Refuse a key of rank_pattern or alpha_pattern that matches no adapted layer, or is not a regular expression.

    Raises:
        SettingsError: the message names the key and the nearest layer name.
    """
    names = list(names)
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
