"""What makes the layers of a PeftModel fast during training; the run adds it, and removes it at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from lora_med.config.schema import TrainSettings
from lora_med.models.memory import large_tensors_returned
from lora_med.training.step.frozen_cache import no_gradient_below
from lora_med.training.step.fused_lora import Group, fused_lora


@contextmanager
def fast_layers(
    model: Any, args: Any, settings: TrainSettings, *, partitioned: bool = False
) -> Iterator[Sequence[Group]]:
    """During training: LoRA layers in groups, no gradient below the lowest one, and memory returned early on a CPU.

    Args:
        model: the PeftModel.
        args: TRL's SFTConfig; if it asks for reentrant recomputation, the gradient below the adapters is computed.
        settings: the section `train`.
        partitioned: DeepSpeed. Then nothing changes, because it gathers weights by hooks that a group would bypass.
    """
    if partitioned:
        yield ()
        return
    options = (getattr(args, f"{kind}_checkpointing_kwargs", None) for kind in ("gradient", "activation"))
    reentrant = any(option and option.get("use_reentrant") for option in options)
    below = nullcontext() if reentrant else no_gradient_below(model.get_base_model())
    scarce = settings.gradient_checkpointing and args.device.type == "cpu"
    with fused_lora(model) as groups, below, large_tensors_returned() if scarce else nullcontext():
        yield groups
