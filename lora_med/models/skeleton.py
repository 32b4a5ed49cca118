"""A base without its weights: names, shapes and kinds of its layers, in no memory to speak of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_med.models.resolve import read_config


def skeleton(folder: Path) -> Any:
    """The model that the folder's config.json describes, on torch's meta device.

    Raises:
        SettingsError, IntegrityError: as `read_config`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(read_config(folder), trust_remote_code=False)
