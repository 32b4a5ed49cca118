"""Whether an adapter in the store has the shape that the settings ask for, so that it can be trained further."""

from __future__ import annotations

from lora_med.adapters.tensors.method import Method
from lora_med.errors import SettingsError


def refuse_other_shape(wanted: Method, stored: Method, name: str) -> None:
    """Refuse to train an adapter further with settings of another shape; its dropout and initialization may differ.

    Raises:
        SettingsError: it names each field with the adapter's value and that of the settings, or the parts of the
            adapter other than updates, which cannot be trained further.
    """
    beside = ("lora_bias", "modules_to_save", "trainable_token_indices")
    more = [key for key in beside if getattr(stored, key) != getattr(wanted, key)]
    if more:
        raise SettingsError(
            f"cannot continue from {name!r}: it has more than updates of layers ({', '.join(more)})",
            where="lora.continue_from",
            fix=f"merge it first, and train on the merged base: lora-med merge {name} --out FOLDER",
        )
    same = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "layers_to_transform", "use_rslora", "use_dora")
    wrong = [
        f"lora.{key}: {name} has {getattr(stored, key)}, the settings have {getattr(wanted, key)}"
        for key in same
        if getattr(stored, key) != getattr(wanted, key)
    ]
    if set(wanted.target_modules) != set(stored.target_modules):
        wrong.append(f"lora.target_modules: {name} has {', '.join(sorted(stored.target_modules))}")
    if set(wanted.target_parameters) != set(stored.target_parameters):
        has = ", ".join(sorted(stored.target_parameters)) or "no routed experts"
        wrong.append(f"lora.target_experts: {name} has {has}")
    if wanted.init != "default":
        wrong.append(f"lora.init_lora_weights: {wanted.init} would overwrite what {name} learned; use the default")
    if wrong:
        raise SettingsError(
            f"cannot continue from {name!r}:\n  " + "\n  ".join(wrong),
            where="lora.continue_from",
            fix="set the fields to the adapter's values",
        )
