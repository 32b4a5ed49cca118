"""PEFT puts an adapter on the layers that are named, and on those alone.

In mixtures of experts PEFT (0.19 to 0.21) takes `gate_proj`, `up_proj` and `down_proj` for the names that transformers
4 gave the routed experts. It moves the adapter there, also where a shared expert or a dense layer has that name.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lora_med.adapters.tensors.weights import adapter_parameters
from lora_med.errors import SettingsError


@contextmanager
def named_layers_only() -> Iterator[None]:
    """Keep PEFT from rewriting the names of layers while it attaches an adapter."""
    import peft.utils.transformers_weight_conversion as conversion

    before = conversion.convert_peft_config_for_transformers
    conversion.convert_peft_config_for_transformers = lambda *_arguments, **_named: None
    try:
        yield
    finally:
        conversion.convert_peft_config_for_transformers = before


def moves_names(model: Any, config: Any) -> bool:
    """Whether PEFT alone would put an adapter of this LoraConfig elsewhere than on the layers that it names."""
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    changed = copy.deepcopy(config)
    try:
        convert_peft_config_for_transformers(changed, model=model, conversions=None)
    except ValueError:  # it names one half of a pair that PEFT only moves together
        return True
    return set(changed.target_modules) != set(config.target_modules)


def check_attached(model: Any, adapter: str, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a model on which PEFT made other tensors of the adapter than those that are published and merged.

    Args:
        expected: tensor name in the adapter's file -> shape.

    Raises:
        SettingsError: with the number of tensors too many, too few and of another shape, and the first name.
    """
    attached = {name: tuple(parameter.shape) for name, (_, parameter) in adapter_parameters(model, adapter).items()}
    more, fewer = attached.keys() - expected.keys(), expected.keys() - attached.keys()
    other_shape = {name for name in attached.keys() & expected.keys() if attached[name] != tuple(expected[name])}
    differing = sorted(more | fewer | other_shape)
    if differing:
        raise SettingsError(
            f"PEFT attaches {len(more)} tensors too many, {len(fewer)} too few and {len(other_shape)} of another "
            f"shape, such as {differing[0]!r}",
            where="lora.target_modules",
            fix="name the layers by more of their names, or use lora.target_modules=all-linear",
        )
