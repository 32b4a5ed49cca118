"""Add trained tokens to a loaded base: a copy of its tokenizer has them, and its embedding has a row for each.

A base whose embedding has rows that no token uses, as many are padded to a round number, gives these first. Only where
they do not suffice, the embedding and the head grow. A new row starts as the mean of the rows of the token's pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_med.errors import SettingsError
from lora_med.models.base import Base
from lora_med.models.tokenizer import with_template
from lora_med.models.tokens.numbering import check_numbers, new_among, with_tokens

STATE = "lora_med_tokens"  # attribute of a model that has trained tokens
logger = logging.getLogger(__name__)


@dataclass(eq=False)
class BaseTokens:
    """The trained tokens of a loaded base.

    `ids` are those of all of them, `new` those that its own tokenizer does not have. `rows` is the number of rows that
    its embedding had before. `inputs` and `outputs` are the starting rows in the embedding and in the head, (tokens,
    width), float32, in the order of `ids`; `outputs` is None for a model that predicts no words.
    """

    ids: dict[str, int]
    new: tuple[str, ...]
    rows: int
    inputs: Any
    outputs: Any
    _before: list[tuple[Any, str, Any]] = field(default_factory=list, repr=False)
    _bases: list[tuple[Base, Any]] = field(default_factory=list, repr=False)

    @property
    def added_rows(self) -> list[int]:
        """The ids for which the embedding had no row."""
        return sorted(number for number in self.ids.values() if number >= self.rows)


def tokens_of(model: Any) -> BaseTokens | None:
    """The trained tokens that a model was given, with or without adapters on it; None if it has its own alone."""
    return getattr(model, STATE, None)


def embedding_of(model: Any) -> Any:
    """The token embedding, without PEFT's wrapper."""
    return _inner(model.get_input_embeddings())


def head_of(model: Any) -> Any:
    """The output head, without PEFT's wrapper; None for a model that predicts no words."""
    head = model.get_output_embeddings()
    return None if head is None else _inner(head)


def is_tied(model: Any) -> bool:
    """Whether the head's weight is the embedding's."""
    head = head_of(model)
    return head is not None and head.weight is embedding_of(model).weight


def add_tokens(base: Base, ids: Mapping[str, int]) -> bool:
    """Give the base these tokens, and return whether they are new to it; its model and its tokenizer are changed.

    `base.tokenizer` becomes a copy that has the tokens, and `base.model` grows where it has no free row for them.

    Raises:
        SettingsError: the ids are not those that its tokenizer would give, or it has other new tokens.
    """
    model, state = base.model, tokens_of(base.model)
    if state is not None:
        if not set(ids.items()) <= set(state.ids.items()):
            raise SettingsError(
                f"the base has the trained tokens {_names(state.ids)}, and the adapter {_names(ids)}",
                where=base.name,
                fix="use adapters with the same trained tokens together, or load the base again for each",
            )
        if all(known is not base for known, _ in state._bases):
            _exchange(base, state)
        return False
    state = _measure(base, dict(ids))
    if state.added_rows:
        _grow(model, state)
    setattr(model, STATE, state)
    _exchange(base, state)
    free = len(state.new) - len(state.added_rows)
    if state.new:
        logger.info(
            "tokens: %d new, %d in free rows of the embedding; it has %d rows%s",
            len(state.new),
            free,
            state.rows + len(state.added_rows),
            f", {len(state.added_rows)} of them added" if state.added_rows else " as before",
        )
    return True


def remove_tokens(model: Any) -> None:
    """Take the trained tokens away again: the model and the tokenizers are as they were loaded."""
    state = tokens_of(model)
    if state is None:
        return
    for owner, name, value in state._before:
        setattr(owner, name, value)
    for base, tokenizer in state._bases:
        template = base.tokenizer.chat_template
        object.__setattr__(base, "tokenizer", with_template(tokenizer, template) if template else tokenizer)
    delattr(model, STATE)


def number_tokens(base: Base, tokens: Sequence[str]) -> dict[str, int]:
    """The id of each token: the base's own, or the one that a new token gets.

    Raises:
        SettingsError: a token cannot be one (`with_tokens`).
    """
    known = tokens_of(base.model)
    if known is not None and set(tokens) <= known.ids.keys():
        return {token: known.ids[token] for token in tokens}
    return with_tokens(base.tokenizer, tokens)[1]


def grow_shapes(model: Any, ids: Mapping[str, int]) -> Any:
    """The model without weights, with rows for these ids."""
    most = max(ids.values(), default=0) + 1
    if most > embedding_of(model).num_embeddings:
        _grow(model, BaseTokens({}, (), embedding_of(model).num_embeddings, None, None), most)
    return model


def _names(ids: Mapping[str, int]) -> str:
    return ", ".join(f"{token!r} ({number})" for token, number in ids.items())


def _inner(module: Any) -> Any:
    adapter = getattr(module, "token_adapter", None)
    return module if adapter is None else adapter.get_base_layer()


def _exchange(base: Base, state: BaseTokens) -> None:
    """Put a copy with the tokens in the place of the base's tokenizer."""
    state._bases.append((base, base.tokenizer))
    # The one field of a Base that changes: everything that reads its tokenizer must see the tokens.
    object.__setattr__(base, "tokenizer", check_numbers(base.tokenizer, state.ids))


def _measure(base: Base, ids: dict[str, int]) -> BaseTokens:
    check_numbers(base.tokenizer, ids)
    new = new_among(base.tokenizer, ids)
    embedding, head = embedding_of(base.model), head_of(base.model)
    rows = embedding.num_embeddings
    outside = sorted(number for number in ids.values() if number >= rows)
    if outside and outside != list(range(rows, rows + len(outside))):
        raise SettingsError(
            f"the new tokens would get the ids {outside}, and the embedding ends at {rows - 1}",
            where="lora.trainable_tokens",
            fix="use a base whose tokenizer has no gap before its next id",
        )
    if outside and head is not None and getattr(head, "bias", None) is not None:
        raise SettingsError(
            "the output head has a bias for each word and no free row for a new one",
            where="lora.trainable_tokens",
            fix="use a base with free rows in its embedding, or train tokens that it has",
        )
    pieces = {token: base.tokenizer(token, add_special_tokens=False)["input_ids"] for token in new}
    inputs = _starts(embedding.weight, base.tokenizer, ids, pieces)
    outputs = (
        None if head is None else inputs if is_tied(base.model) else _starts(head.weight, base.tokenizer, ids, pieces)
    )
    return BaseTokens(ids, tuple(new), rows, inputs, outputs)


def _starts(weight: Any, tokenizer: Any, ids: Mapping[str, int], pieces: Mapping[str, list[int]]) -> Any:
    """The row of each token: its own, or for a new one the mean of its pieces' rows; without pieces, of all words'."""
    import torch

    def start(token: str) -> Any:
        if token not in pieces:
            return weight[ids[token]].float()
        known = [number for number in pieces[token] if number != tokenizer.unk_token_id]
        return (weight[known] if known else weight[: len(tokenizer)]).float().mean(0)

    with torch.no_grad():
        return torch.stack([start(token) for token in ids])


def _grow(model: Any, state: BaseTokens, most: int | None = None) -> None:
    """Add rows to the embedding and the head; what was there is remembered in the state."""
    import torch

    embedding, head, tied = embedding_of(model), head_of(model), is_tied(model)
    rows = most or state.rows + len(state.added_rows)
    ends = [(embedding, "num_embeddings", state.inputs)]
    if head is not None:
        ends.append((head, "out_features", state.outputs))
    config = model.config.get_text_config()
    state._before += [(config, "vocab_size", config.vocab_size)]
    state._before += [(model, "vocab_size", model.vocab_size)] if hasattr(model, "vocab_size") else []
    for module, size, starts in ends:
        state._before += [(module, "weight", module.weight), (module, size, getattr(module, size))]
        if module is head and tied:
            module.weight = embedding.weight
        else:
            old = module.weight.data
            more = old.new_zeros((rows - old.shape[0], old.shape[1]))
            if starts is not None:
                numbers = list(state.ids.values())
                chosen = [position for position, number in enumerate(numbers) if number >= state.rows]
                order = sorted(chosen, key=lambda position: numbers[position])
                more.copy_(starts[order])
            module.weight = torch.nn.Parameter(torch.cat([old, more]), requires_grad=False)
        setattr(module, size, rows)
    for owner in (config, *([model] if hasattr(model, "vocab_size") else [])):
        owner.vocab_size = rows
