"""A base without its weights: names, shapes and kinds of its layers, in almost no memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.models.building import BUILDING
from lora_med.models.files.resolve import model_class, read_config


def skeleton(folder: Path, *, labels: int = 0) -> Any:
    """The model that the folder's config.json describes, on torch's meta device; with `labels`, a token classifier.

    Raises:
        SettingsError, IntegrityError: as `read_config`.
    """
    import torch

    config = read_config(folder, tags=bool(labels))
    if labels:
        config.num_labels = labels
    try:
        with BUILDING, torch.device("meta"):
            return model_class(config, tags=bool(labels))._from_config(config)
    except Exception as error:  # a damaged configuration raises many kinds
        raise IntegrityError(
            f"config.json does not describe a model ({type(error).__name__})",
            where=str(folder),
            fix="copy or download the model again",
        ) from error
