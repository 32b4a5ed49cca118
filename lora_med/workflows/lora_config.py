"""A `peft.LoraConfig` in place of the section `lora`: what it asks for is honored, or refused by name."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from lora_med.config.schema import LoraSettings, Settings
from lora_med.errors import SettingsError

SAME_MEANING = (  # fields of LoraConfig that mean the same in `lora`
    *("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "layers_to_transform"),
    *("use_rslora", "use_dora"),
)
INITIALIZATIONS = {True: "default", "gaussian": "gaussian", "pissa": "pissa", "olora": "olora", "eva": "eva"}
TASK_TYPES = (None, "CAUSAL_LM", "TOKEN_CLS")
HANDLED = ("task_type", "target_modules", "init_lora_weights", "base_model_name_or_path", "inference_mode")
INTERNAL = ("peft_version", "runtime_config", "auto_mapping", "peft_type", "revision", "fan_in_fan_out")


def with_lora(settings: Settings, lora: Any) -> Settings:
    """`settings` with the section `lora` as the `peft.LoraConfig` says; the same settings if it is None.

    Raises:
        SettingsError: it is no LoraConfig, or a field of it asks for what lora_med does not do; all are named.
    """
    if lora is None:
        return settings
    from peft import LoraConfig

    if not isinstance(lora, LoraConfig):
        raise SettingsError(
            f"lora= cannot be a {type(lora).__name__}",
            where="lora=",
            fix="give a peft.LoraConfig, or set settings.lora",
        )
    _refuse_others(lora, LoraConfig(target_modules="all-linear"))
    task_type = lora.task_type or settings.lora.task_type
    values = {
        **{name: getattr(lora, name) for name in SAME_MEANING},
        "target_modules": _targets(lora.target_modules),
        "init_lora_weights": INITIALIZATIONS[lora.init_lora_weights],  # pyright: ignore[reportArgumentType]
        "task_type": str(getattr(task_type, "value", task_type)),
        "continue_from": settings.lora.continue_from,
        "target_experts": settings.lora.target_experts,
        "trainable_tokens": settings.lora.trainable_tokens,
    }
    try:
        section = LoraSettings.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
        raise SettingsError(
            f"the LoraConfig has values that lora_med does not accept: {wrong}",
            where="lora=",
            fix="change these values; `lora-med config schema` lists what the section `lora` accepts",
        ) from error
    return settings.model_copy(update={"lora": section})


def _targets(target_modules: Any) -> Any:
    """A list of layer names, or "all-linear"; None, by which PEFT takes its own few layers, is every linear layer."""
    if target_modules is None:
        return "all-linear"
    return target_modules if isinstance(target_modules, str) else sorted(target_modules)


def _refuse_others(lora: Any, default: Any) -> None:
    """Name every field that asks for something the section `lora` has no setting for."""
    wrong = [
        f"{name}={value!r}"
        for name, value in sorted(vars(lora).items())
        if name not in (*SAME_MEANING, *HANDLED, *INTERNAL, "target_parameters") and value != vars(default).get(name)
    ]
    if lora.init_lora_weights not in INITIALIZATIONS:
        wrong.append(f"init_lora_weights={lora.init_lora_weights!r}")
    if str(getattr(lora.task_type, "value", lora.task_type)) not in map(str, TASK_TYPES):
        wrong.append(f"task_type={lora.task_type!r}")
    if lora.target_parameters:
        wrong.append("routed experts by name (lora.target_experts=true in the settings adapts all of them)")
    if isinstance(lora.target_modules, str) and lora.target_modules != "all-linear":
        wrong.append(f"target_modules={lora.target_modules!r} (a pattern)")
    if wrong:
        raise SettingsError(
            f"the LoraConfig asks for what lora_med does not train: {', '.join(wrong)}",
            where="lora=",
            fix="leave these fields at their defaults; `lora-med config schema` lists what the section `lora` accepts",
        )
