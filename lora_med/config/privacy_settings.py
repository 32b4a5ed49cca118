"""The settings of training with differential privacy, and what it cannot be combined with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lora_med.config.evaluate_settings import FED_BY_SCORES
from lora_med.config.section import Section

if TYPE_CHECKING:
    from lora_med.config.schema import Settings, TrainSettings


class PrivacySettings(Section):
    """What training with differential privacy promises, and about whom."""

    epsilon: Annotated[float, Field(gt=0, le=100)]
    """The most that the run may spend. One patient changes the odds of any adapter by e^epsilon at most, but for delta.
    1 to 3 is strong, 8 is common, above 10 says little."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """The probability with which the promise may fail; below one over the number of patients."""
    unit: Literal["patient"] = "patient"
    """Who is protected: all rows of a patient together, where a patient is the group of a record, as in splits."""
    clip: Annotated[float, Field(gt=0)] = 0.1
    """The gradient of a patient is scaled down to this norm. With Adam a small value costs nothing (Li et al. 2022)."""


# Fields of SFTConfig that would change what a patient's gradient is, or who computes it.
UNTESTED = (
    *("neftune_noise_alpha", "torch_compile", "use_liger_kernel", "activation_offloading", "fsdp", "deepspeed"),
    *("accelerator_config", "parallelism_config"),
)


def refused_beside_privacy(settings: Settings) -> list[str]:
    """The settings that privacy cannot be combined with, each with what would be right; empty where all can."""
    train = settings.train
    if train.privacy is None:
        return []
    model, lora = settings.model, settings.lora
    wrong = {
        "train.method dpo (sft)": train.method == "dpo",
        "train.packing true (false: a packed row holds several patients)": train.packing,
        "train.share_context true (false: a joined row may hold several patients)": train.share_context,
        "train.cache_frozen true (false: not tested)": train.cache_frozen,
        "train.gradient_checkpointing true (false: not tested)": train.gradient_checkpointing,
        "train.batch auto (as_set: the batch decides how much noise is needed)": train.batch == "auto",
        f"train.max_grad_norm {train.max_grad_norm:g} (leave it out: train.privacy.clip bounds each patient)": (
            train.max_grad_norm != _default(train, "max_grad_norm")
        ),
        f"train.lr_scheduler_type {train.lr_scheduler_type} (another: it follows the validation loss)": (
            train.lr_scheduler_type in FED_BY_SCORES
        ),
        **{f"train.trainer_args {name} (leave it out: not tested)": bool(train.trainer_args.get(name))
           for name in UNTESTED},
        "data.streaming true (false: the number of patients must be known)": settings.data.streaming,
        "data.mix (one source: which rows of a mixture are taken depends on other patients)": bool(settings.data.mix),
        f"data.max_records {settings.data.max_records} (leave it out: who is read depends on other patients)": (
            settings.data.max_records is not None
        ),
        "model.load_in_8bit true (load_in_4bit: in 8 bits the rows of a batch change each other)": model.load_in_8bit,
        "model.dtype float16 (bfloat16 or float32: its scaler skips steps)": model.dtype == "float16",
        "lora.use_dora true (false: not tested)": lora.use_dora,
        "lora.target_experts true (false: not tested)": lora.target_experts,
        "lora.trainable_tokens (leave it out: not tested)": bool(lora.trainable_tokens),
        "lora.init_lora_weights eva (another: it looks at the rows without noise)": lora.init_lora_weights == "eva",
        "lora.continue_from (leave it out: what the earlier adapter learned of the patients is not counted)": (
            lora.continue_from is not None
        ),
        **_choices_by_validation(settings),
    }  # fmt: skip
    return [what for what, is_set in wrong.items() if is_set]


def _choices_by_validation(settings: Settings) -> dict[str, bool]:
    """What would choose the adapter, or the end, by patients who are held out; choosing is not charged for."""
    train, why = settings.train, "choosing by the patients who are held out would have to be charged for"
    metric = train.metric_for_best_model
    return {
        f"train.eval_steps {train.eval_steps} (leave it out: {why})": train.eval_steps is not None,
        f"train.early_stopping_patience {train.early_stopping_patience} (leave it out: {why})": (
            train.early_stopping_patience is not None
        ),
        f"train.metric_for_best_model {metric} (leave it out: {why})": metric
        != _default(train, "metric_for_best_model"),
        f"evaluate.eval_steps {settings.evaluate.eval_steps} (leave it out: {why})": bool(settings.evaluate.eval_steps),
    }


def _default(train: TrainSettings, name: str) -> object:
    return type(train).model_fields[name].default
