"""The setting `lora.trainable_tokens` against the tokenizer of the base, before the weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lora_med.config.schema import ModelSettings
from lora_med.errors import SettingsError
from lora_med.models.base import resolve_base
from lora_med.models.quantize import is_sharded
from lora_med.models.tokenizer import load_tokenizer
from lora_med.models.tokens.numbering import with_tokens


def check_tokens(tokens: Sequence[str], model: ModelSettings) -> None:
    """Refuse tokens that the base's tokenizer cannot take, and a model in shards, whose rows no adapter can train.

    Raises:
        SettingsError: it names the token.
    """
    if is_sharded():
        raise SettingsError(
            "tokens cannot be trained where the model is in shards (FSDP, DeepSpeed)",
            where="lora.trainable_tokens",
            fix="use one process or several with the whole model each (DDP), or leave lora.trainable_tokens out",
        )
    tokenizer_with(tokens, model, needs_eos=False)


def tokenizer_with(tokens: Sequence[str], model: ModelSettings, *, needs_eos: bool = True) -> Any:
    """The base's tokenizer, with these tokens in a copy of it if there are any.

    Raises:
        SettingsError: as `with_tokens`.
    """
    tokenizer, _ = load_tokenizer(resolve_base(model.base, model.revision)[0], needs_eos=needs_eos)
    return with_tokens(tokenizer, tokens)[0] if tokens else tokenizer
