"""Parts of a model: the one that reads text, the one before its output head, and a head that tags tokens."""

from __future__ import annotations

from typing import Any

TAG_HEADS = ("score", "classifier")  # what transformers calls the head of a token classifier


def tag_head(model: Any) -> str | None:
    """The name of the model's token classification head, with or without PEFT's wrapper; None for a language model."""
    if "ForTokenClassification" not in type(model).__name__:
        return None
    return next((name for name in TAG_HEADS if hasattr(model, name)), None)


def language_part(model: Any) -> str:
    """The name of the submodule that reads text in a model of several modalities; an empty text for other models."""
    config = getattr(model, "config", None)
    text = None if config is None else config.get_text_config(decoder=True)
    if text is None or text is config:
        return ""
    parts = [name for name, module in model.named_modules() if name and getattr(module, "config", None) is text]
    return min(parts, key=lambda name: (name.count("."), len(name)), default="")


def backbone(model: Any) -> Any:
    """The module whose `last_hidden_state` the output head reads.

    It is `base_model`, but for classes such as Llama 4's for text alone, whose prefix names a module they do not have.
    """
    if model.base_model is not model:
        return model.base_model
    from transformers import PreTrainedModel

    return next(child for child in model.children() if isinstance(child, PreTrainedModel))
