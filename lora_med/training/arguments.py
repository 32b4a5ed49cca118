"""TrainSettings to TRL's SFTConfig: each default that is wrong for LoRA on our rows is set here, with its reason."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from trl.trainer.sft_config import SFTConfig

from lora_med.config.near_names import unknown
from lora_med.config.schema import TrainSettings
from lora_med.errors import DependencyMissingError, SettingsError
from lora_med.models.attention.per_document import NAME as PER_DOCUMENT
from lora_med.models.base import Base
from lora_med.processes.launch import world_size

TRACKERS = {"trackio": "trackio", "tensorboard": "tensorboard"}  # report_to -> the package it needs
METRICS = ("eval_loss",)
SHORTEST_DDP_TIMEOUT = 1800  # seconds; transformers' own
FLAT = (PER_DOCUMENT, "flash_attention_2", "flash_attention_3")  # they separate the documents of one row
# Fields of SFTConfig that are the same in every run.
FIXED: dict[str, Any] = {
    "logging_nan_inf_filter": False,  # it would log loss 0.0 after the first NaN until the end
    "disable_tqdm": True,  # the progress display is ours
    "project": "lora_med",
    "trackio_space_id": None,  # a tracker keeps its numbers on this machine
    "trackio_static_space_id": False,
    "save_strategy": "steps",
    "save_total_limit": None,  # transformers would delete any folder named checkpoint-*; ours deletes only its own
    "load_best_model_at_end": False,
    "restore_callback_states_from_checkpoint": False,  # it would restore "stop" from a stopped run
    "max_length": None,  # the rows come tokenized, chunked and checked
    "packing": False,
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "remove_unused_columns": False,
    "ddp_find_unused_parameters": False,
    "push_to_hub": False,
}
# Fields of SFTConfig that would break a promise of lora_med, and why; the fields that lora_med sets are refused too.
REFUSED = {
    "auto_find_batch_size": "another batch size is another run",
    "average_tokens_across_devices": "the loss is the mean over all tokens of the step, on all processes",
    "chat_template_path": "the template is part of the base's identity",
    "compute_loss_func": "it would add a forward pass",
    "data_seed": "train.seed decides the order too",
    "dataloader_drop_last": "every row counts once an epoch",
    "dataloader_num_workers": "the rows are in memory already",
    "enable_jit_checkpoint": "SIGTERM already commits a checkpoint",
    "hub_token": "adapters are pushed by `lora-med adapters push`",
    "ignore_data_skip": "a resumed run would see rows twice",
    "label_smoothing_factor": "the one-pass loss does not smooth",
    "length_column_name": "batches are not grouped by length, as they are not padded",
    "load_best_model_at_end": "the best adapter is always the one published",
    "loss_type": "the loss is that of train.method",
    "packing_strategy": "lora_med packs the rows itself",
    "padding_free": "batches have no padding already",
    "push_to_hub": "adapters are pushed by `lora-med adapters push`",
    "resume_from_checkpoint": "train.resume decides",
    "save_only_model": "such a checkpoint cannot resume",
    "train_sampling_strategy": "the order is that of train.seed",
    "trust_remote_code": "code from a model repository is never run",
}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Optimizer steps per epoch (None for a stream), and whether there are validation rows."""

    steps_per_epoch: int | None
    validates: bool

    def total(self, settings: TrainSettings) -> int:
        """Optimizer steps of the whole run."""
        if settings.max_steps > 0:
            return settings.max_steps
        if self.steps_per_epoch is None:
            raise SettingsError(
                "a streamed corpus has no known length", where="train.max_steps", fix="set train.max_steps to a number"
            )
        return math.ceil(settings.num_train_epochs * self.steps_per_epoch)

    def eval_steps(self, settings: TrainSettings) -> int:
        """Steps between validations: as set, else an epoch, or a quarter of a streamed run."""
        every = settings.eval_steps or self.steps_per_epoch or max(1, self.total(settings) // 4)
        return min(every, self.total(settings))


def best_metric(settings: TrainSettings) -> str:
    """The validation metric that chooses the adapter, by its full name."""
    name = settings.metric_for_best_model
    full = name if name.startswith("eval_") else f"eval_{name}"
    if full not in METRICS:
        raise SettingsError(unknown("validation metric", full, METRICS), where="train.metric_for_best_model")
    return full


def check_tracker(report_to: str) -> None:
    """Raise DependencyMissingError if the configured tracker is not installed."""
    package = TRACKERS.get(report_to)
    if package is not None and importlib.util.find_spec(package) is None:
        raise DependencyMissingError(
            f"train.report_to is {report_to}, and the package {package} is not installed",
            fix='pip install "lora-med[track]"',
        )


def _checkpointing_field() -> str:
    """The name of the field that recomputes activations; transformers renamed it and warns about the old name."""
    new = "activation_checkpointing"
    return new if any(field.name == new for field in dataclasses.fields(SFTConfig)) else "gradient_checkpointing"


def _ddp_timeout(settings: TrainSettings) -> int:
    """Seconds after which torch gives up a collective operation: later than ours, whose message names the process."""
    return max(SHORTEST_DDP_TIMEOUT, 2 * math.ceil(settings.peer_timeout))


def _check_extra(extra: dict[str, Any], ours: dict[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(SFTConfig) if field.init}
    own = TrainSettings.model_fields
    lines = []
    for name in extra:
        if name in own and name != "trainer_args":
            lines.append(f"`{name}` has its own setting: train.{name}")
        elif name in REFUSED:
            lines.append(f"`{name}` cannot be set: {REFUSED[name]}")
        elif name in ours:
            lines.append(f"`{name}` is set by lora_med")
        elif name not in known:
            lines.append(unknown("field of SFTConfig", name, known).split("; known:")[0].split(" known:")[0])
    if lines:
        raise SettingsError("\n  ".join(["not a setting to pass through:", *lines]), where="train.trainer_args")


def training_arguments(settings: TrainSettings, schedule: Schedule, *, dtype: str) -> SFTConfig:
    """The SFTConfig of a run.

    Args:
        settings: the section `train`.
        schedule: steps per epoch, and whether there are validation rows.
        dtype: number format of the base's computation: float32, bfloat16 or float16.

    Raises:
        SettingsError: `trainer_args` has an unknown name (the near one is named) or one that lora_med decides.
        DependencyMissingError: the tracker is not installed.
    """
    check_tracker(settings.report_to)
    metric = best_metric(settings)
    on_gpu = torch.cuda.is_available()
    every = schedule.eval_steps(settings)
    ours: dict[str, Any] = {
        **FIXED,
        "output_dir": settings.output_dir,
        "run_name": Path(settings.output_dir).name,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": schedule.total(settings),
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "per_device_eval_batch_size": settings.per_device_eval_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": min(settings.warmup_ratio, 0.999),  # below 1 it is a share of the steps
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        # On by default in TRL: it costs a third more time, also where it is not needed.
        _checkpointing_field(): settings.gradient_checkpointing,
        "seed": settings.seed,
        # fp32 adapters on a bf16 base need autocast on a GPU; on a CPU the base computes in its own format.
        "bf16": on_gpu and dtype == "bfloat16",
        "fp16": on_gpu and dtype == "float16",
        "use_cpu": not on_gpu and not torch.backends.mps.is_available(),
        "logging_steps": settings.logging_steps,
        "report_to": [] if settings.report_to == "none" else [settings.report_to],
        "eval_strategy": "steps" if schedule.validates else "no",
        "eval_steps": every,
        "metric_for_best_model": metric if schedule.validates else None,
        "greater_is_better": False,
        "save_steps": settings.save_steps or every,
    }
    _check_extra(settings.trainer_args, ours)
    values: dict[str, Any] = {"ddp_timeout": _ddp_timeout(settings), **ours, **settings.trainer_args}
    try:
        arguments = SFTConfig(**values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"SFTConfig refuses these settings: {error}", where="train") from error
    # One process trains on one GPU. With more, transformers would use DataParallel, which cannot split a row of many
    # documents but would split the positions of its labels.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def refuse_misfit(model: Any, base: Base, settings: TrainSettings) -> None:
    """Refuse settings with which this base cannot be trained.

    Raises:
        SettingsError: an adapter on the output head; packed rows or a shared context with an attention that cannot
            separate them; a cache of rows that noise changes; several processes that would each choose a batch.
    """
    if settings.batch == "auto" and world_size() > 1:
        raise SettingsError(
            "each of several processes would choose its own batch",
            where="train.batch",
            fix="train.batch=as_set, with the sizes that lora-med plan prints",
        )
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise SettingsError(
            "the output head cannot have an adapter",
            where="lora.target_modules",
            fix="leave the output head out; lora.target_modules=all-linear does",
        )
    if settings.packing and base.attention not in FLAT:
        raise SettingsError(
            f"with attention {base.attention!r} the documents of a packed row see each other",
            where="train.packing",
            fix="train.packing=false, or model.attn_implementation=auto if this base has SDPA",
        )
    if settings.cache_frozen and settings.trainer_args.get("neftune_noise_alpha"):
        raise SettingsError(
            "nothing can be cached: the noise of neftune_noise_alpha makes a row differ each time",
            where="train.cache_frozen",
            fix="train.cache_frozen=false",
        )
    if settings.share_context and base.attention != PER_DOCUMENT:
        raise SettingsError(
            f"attention {base.attention!r} cannot separate the continuations of a shared context",
            where="train.share_context",
            fix="set model.attn_implementation=auto",
        )
