"""What is wrong with the section `train` by itself, found before a base is loaded."""

from __future__ import annotations

from pathlib import Path

from lora_med.config.schema import TrainSettings
from lora_med.models.quantize import load_bitsandbytes


def check_training(settings: TrainSettings) -> None:
    """Find what is wrong with the section `train` by itself; cheap, and to be called before a base is loaded.

    Raises:
        SettingsError: an unknown name, or one that lora_med decides.
        DependencyMissingError: the tracker is not installed.
        OutputError: there is an earlier run in the folder, and `resume` is never.
    """
    load_bitsandbytes()  # TRL, which the next lines load, brings PEFT, and that would bring torch's compiler with it
    from lora_med.training.arguments import Schedule, training_arguments
    from lora_med.training.run.resume import refuse_used

    training_arguments(settings, Schedule(1, validates=False), dtype="float32")
    refuse_used(Path(settings.output_dir), settings.resume)
