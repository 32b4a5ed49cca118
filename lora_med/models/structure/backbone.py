"""The part of a language model before its output head."""

from __future__ import annotations

from typing import Any


def backbone(model: Any) -> Any:
    """The module whose `last_hidden_state` the output head reads.

    It is `base_model`, but for classes such as Llama 4's for text alone, whose prefix names a module they do not have.
    """
    if model.base_model is not model:
        return model.base_model
    from transformers import PreTrainedModel

    return next(child for child in model.children() if isinstance(child, PreTrainedModel))
