"""What a private run is checked for before a model is loaded."""

from __future__ import annotations

from lora_med.config.privacy_settings import refused_beside_privacy
from lora_med.config.schema import Settings
from lora_med.errors import SettingsError
from lora_med.processes.launch import world_size
from lora_med.training.private.accountant import require_opacus


def check_private(settings: Settings) -> None:
    """Refuse what `train.privacy` cannot be combined with; without privacy nothing is checked.

    Raises:
        SettingsError: a setting that it cannot be combined with, or several processes.
        DependencyMissingError: Opacus is not installed.
    """
    if settings.train.privacy is None:
        return
    refused = refused_beside_privacy(settings)
    if refused:
        raise SettingsError(
            f"train.privacy cannot be combined with {'; nor with '.join(refused)}",
            where="train.privacy",
            fix="set these, or leave train.privacy out",
        )
    refuse_several_processes()
    require_opacus()


def refuse_several_processes() -> None:
    """Refuse a launch of several processes, whose draws and noise are not joined.

    Raises:
        SettingsError: there are several.
    """
    if world_size() > 1:
        raise SettingsError(
            f"training with privacy takes one process, and this run has {world_size()}",
            where="train.privacy",
            fix="lora-med train without --processes, or without train.privacy",
        )
