"""Trained rows of a base's embedding and head: which an adapter has, how they start, and how PEFT holds them.

A head that is tied to the embedding has the embedding's rows, so an adapter stores one set. An untied head has its own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from lora_med.adapters.tensors.method import Method
from lora_med.adapters.tensors.weights import TOKEN_ROWS, adapter_parameters
from lora_med.errors import SettingsError
from lora_med.models.base import Base
from lora_med.models.structure.exclusion import ends_in
from lora_med.models.tokens.vocabulary import add_tokens, embedding_of, head_of, is_tied, number_tokens, tokens_of

WHERE = "lora.trainable_tokens"


def train_tokens(method: Method, base: Base, tokens: Sequence[str]) -> Method:
    """The method that also trains these tokens' rows, at both ends of the model; the base gets the tokens.

    Raises:
        SettingsError: a token cannot be one, or the base's ends cannot have trained rows.
    """
    if not tokens:
        return method
    ids = number_tokens(base, tokens)
    add_tokens(base, ids)
    ends = token_ends(base.model)
    ends_adapted = [layer.name for layer in method.targets(base.model) if layer.name in ends]
    if ends_adapted:
        raise SettingsError(
            f"{ends_adapted[0]!r} cannot have an adapter and trained tokens",
            where=WHERE,
            fix="leave it out of lora.target_modules",
        )
    return replace(method, trainable_token_indices={end: list(ids.values()) for end in ends})


def refuse_other_tokens(trained: Collection[str], wanted: Collection[str], name: str) -> None:
    """Refuse to train an adapter further with other tokens than it has.

    Raises:
        SettingsError: with the setting that fits.
    """
    if set(trained) != set(wanted):
        raise SettingsError(
            f"cannot continue from {name!r}: its trained tokens are {', '.join(trained) or 'none'}, those of the "
            f"settings {', '.join(wanted) or 'none'}",
            where=WHERE,
            fix=f"lora.trainable_tokens={json.dumps(list(trained), ensure_ascii=False)}",
        )


def token_ends(model: Any) -> list[str]:
    """The names of the embedding and, where it has rows of its own, of the head."""
    import torch

    embedding, head = embedding_of(model), head_of(model)
    if not isinstance(embedding, torch.nn.Embedding) or type(head) not in (torch.nn.Linear, type(None)):
        kinds = ", ".join(type(module).__name__ for module in (embedding, head))
        raise SettingsError(
            f"rows of this base cannot be trained: its ends are {kinds}",
            where=WHERE,
            fix="use a base with a plain embedding and a plain head, or leave lora.trainable_tokens out",
        )
    if head is not None and head.bias is not None:
        raise SettingsError(
            "the head of this base has a bias, which PEFT leaves out where the head's rows are trained",
            where=WHERE,
            fix="use a base whose head has no bias, or leave lora.trainable_tokens out",
        )
    wanted = [embedding] if head is None or is_tied(model) else [embedding, head]
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(module)] for module in wanted]


def trained_rows(module: Any) -> tuple[Any, Any]:
    """The active adapter's trained rows of PEFT's embedding or head, and their ids; None and None without any."""
    import torch

    layer = getattr(module, "token_adapter", None)
    active = [] if layer is None or layer.disable_adapters else layer.active_adapters
    if layer is None or not active:
        return None, None
    rows = layer.trainable_tokens_delta[active[0]]
    return rows, torch.tensor(layer.token_indices[active[0]], device=rows.device)


def end_of(model: Any, name: str) -> str:
    """Which end of the model a name of `trainable_token_indices` means: `input`, `output`, or `both` if they are tied.

    Raises:
        SettingsError: it names neither.
    """
    names = {id(module): full for full, module in model.named_modules()}
    embedding, head = embedding_of(model), head_of(model)
    if ends_in(names[id(embedding)], name):
        return "both" if is_tied(model) else "input"
    if head is not None and ends_in(names[id(head)], name):
        return "output"
    raise SettingsError(f"trained tokens of {name!r}, which is neither the embedding nor the head of the base")


def start_tokens(model: Any, adapter: str) -> None:
    """Put the starting rows of the tokens into the new adapter, in float32.

    Raises:
        SettingsError: PEFT takes the head for untied, while its weight is the embedding's.
    """
    import torch

    bare = model.get_base_model()
    known = tokens_of(bare)
    rows_by_name = {
        name: parameter
        for name, (_, parameter) in adapter_parameters(model, adapter).items()
        if name.endswith(TOKEN_ROWS)
    }
    if known is None or not rows_by_name:
        return
    if is_tied(bare) and bare.get_output_embeddings() is head_of(bare):
        raise SettingsError(
            "the head of this base is tied to its embedding, and its settings do not say so",
            where=WHERE,
            fix="set tie_word_embeddings to true in the base's config.json",
        )
    embedding = bare.get_input_embeddings()
    own = {id(parameter) for parameter in embedding.parameters()}
    with torch.no_grad():
        for parameter in rows_by_name.values():
            rows = known.inputs if id(parameter) in own else known.outputs
            parameter.data = rows.to(parameter.device, torch.float32, copy=True)
