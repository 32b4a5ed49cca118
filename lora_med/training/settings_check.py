"""Checks of the section `train` by itself, before a base is loaded."""

from __future__ import annotations

from pathlib import Path

from lora_med.config.schema import TrainSettings
from lora_med.models.quantize import load_bitsandbytes


def check_training(settings: TrainSettings) -> None:
    """Check the section `train` by itself; this is fast, so call it before a base is loaded.

    Raises:
        SettingsError: an unknown name, or one that lora_med decides.
        DependencyMissingError: the tracker is not installed.
        OutputError: the folder holds an earlier run, and `resume` is never.
    """
    load_bitsandbytes()  # first, because the next lines import TRL and PEFT, which would load torch's compiler
    from lora_med.training.arguments import Schedule, training_arguments
    from lora_med.training.run.resume import refuse_used

    training_arguments(settings, Schedule(1, validates=False), dtype="float32")
    refuse_used(Path(settings.output_dir), settings.resume)
