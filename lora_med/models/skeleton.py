"""A base without its weights: names, shapes and kinds of its layers, in almost no memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_med.models.files.resolve import read_config


def skeleton(folder: Path, *, labels: int = 0) -> Any:
    """The model that the folder's config.json describes, on torch's meta device; with `labels`, a token classifier.

    Raises:
        SettingsError, IntegrityError: as `read_config`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    with torch.device("meta"):
        if labels:
            config = read_config(folder, tags=True)
            config.num_labels = labels
            return AutoModelForTokenClassification.from_config(config, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(read_config(folder), trust_remote_code=False)
