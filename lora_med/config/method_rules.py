"""What the training method decides about other settings: its own defaults, and what it cannot be combined with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_med.config.schema import Settings

DPO = "dpo"
# Defaults of method dpo: a ratio to the reference needs small steps, and must hold no noise of dropout.
DEFAULTS = {"train": {"learning_rate": 2e-5}, "lora": {"lora_dropout": 0.0}}
PLAIN_STARTS = ("default", "gaussian")  # initializations with which the adapter starts as the base itself


def with_method_defaults(values: Any) -> Any:
    """The raw sections of a run's settings, with the defaults of its method where they name no value."""
    train = values.get("train") if isinstance(values, dict) else None
    method = train.get("method") if isinstance(train, dict) else getattr(train, "method", None)
    if method != DPO:
        return values
    own = {name: values.get(name, {}) for name in DEFAULTS}
    return values | {name: {**DEFAULTS[name], **section} for name, section in own.items() if isinstance(section, dict)}


def refused_combinations(settings: Settings) -> list[str]:
    """The settings that the method cannot be combined with, each with what would be right; empty where all can."""
    data, lora, train, evaluate = settings.data, settings.lora, settings.train, settings.evaluate
    if train.method != DPO:
        default = type(train).model_fields["beta"].default
        return [] if train.beta == default else [f"train.beta {train.beta:g} (it is of method dpo: leave it out)"]
    wrong = {
        "lora.task_type TOKEN_CLS (CAUSAL_LM: tags have no answers to choose between)": lora.task_type == "TOKEN_CLS",
        "lora.trainable_tokens (leave it out: the reference does not know them)": bool(lora.trainable_tokens),
        f"lora.init_lora_weights {lora.init_lora_weights} (default or gaussian: the others do not start as the base)": (
            lora.init_lora_weights not in PLAIN_STARTS
        ),
        f"lora.lora_dropout {lora.lora_dropout:g} (0: its noise would be taken for a preference)": (
            lora.lora_dropout > 0
        ),
        "train.packing true (false: the two answers of a pair are one row)": train.packing,
        "train.share_context true (false: the two answers of a pair are one row)": train.share_context,
        "train.cache_frozen true (false: the reference needs the layers too)": train.cache_frozen,
        "train.assistant_turns all (last: the answers are compared, not the turns before them)": (
            train.assistant_turns == "all"
        ),
        f"train.too_long {train.too_long} (error or drop: the answers would get different prompts)": (
            train.too_long not in (None, "error", "drop")
        ),
        "train.trainer_args neftune_noise_alpha (leave it out: its noise would be taken for a preference)": bool(
            train.trainer_args.get("neftune_noise_alpha")
        ),
        "data.streaming true (false: pairs are few enough to hold)": data.streaming,
        "evaluate.eval_steps (leave it out: each validation compares the held-out pairs, by train.eval_steps)": bool(
            evaluate.eval_steps
        ),
    }
    return [what for what, is_set in wrong.items() if is_set]
