"""Ids for trained tokens in a copy of a base's tokenizer; what would break its control tokens is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.errors import SettingsError

TRAINED = "trained_tokens"  # in a tokenizer's settings: words that count as text wherever someone typed them
WHERE = "lora.trainable_tokens"


def with_tokens(tokenizer: Any, tokens: Sequence[str]) -> tuple[Any, dict[str, int]]:
    """A copy of the tokenizer that has the tokens, and the id of each; a token that it has already keeps its id.

    A new token gets the next free id, in the order of `tokens`. It is no special token: it stays when text is decoded,
    and a text that contains it is tokenized with it.

    Raises:
        SettingsError: a token is a control token of the base, overlaps one, or cannot be told from another word.
    """
    other = copy.deepcopy(tokenizer)
    words = dict(tokenizer.get_vocab())
    control = control_tokens(tokenizer)
    added = control | {token.content for token in tokenizer.added_tokens_decoder.values() if token.content}
    for token in tokens:
        if token in control:
            raise SettingsError(
                f"{token!r} is a control token of the base", where=WHERE, fix="train a token of your own, as <note>"
            )
        if token in words:
            _refuse_alias(tokenizer, token, words[token])
            continue
        overlapped = next((word for word in sorted(added) if _hides(token, word)), None)
        if overlapped is not None:
            raise SettingsError(
                f"{token!r} overlaps {overlapped!r}, which the base could then miss in a text",
                where=WHERE,
                fix="choose a name that does not end as another added token begins, as <note>",
            )
        _add(other, token, taken=words)
        words[token] = other.convert_tokens_to_ids(token)
    other.init_kwargs[TRAINED] = list(dict.fromkeys([*trained_words(tokenizer), *tokens]))
    return other, {token: words[token] for token in tokens}


def trained_words(tokenizer: Any) -> list[str]:
    """The words of a tokenizer that are trained tokens, so that they are text and no control tokens."""
    return list(tokenizer.init_kwargs.get(TRAINED) or [])


def control_tokens(tokenizer: Any) -> set[str]:
    """The special tokens of a tokenizer."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {word for word in {*tokenizer.all_special_tokens, *added} if word}


def new_among(tokenizer: Any, tokens: Iterable[str]) -> list[str]:
    """The tokens that the tokenizer does not have."""
    words = tokenizer.get_vocab()
    return [token for token in tokens if token not in words]


def check_numbers(tokenizer: Any, tokens: Mapping[str, int]) -> Any:
    """A copy of the tokenizer with the tokens, if each gets the id in `tokens`.

    Raises:
        SettingsError: one gets another id, so these are tokens of another base, or beside other new tokens.
    """
    other, numbers = with_tokens(tokenizer, sorted(tokens, key=lambda token: tokens[token]))
    wrong = next((token for token, number in tokens.items() if numbers[token] != number), None)
    if wrong is not None:
        raise SettingsError(
            f"the token {wrong!r} was trained as id {tokens[wrong]}, and would be id {numbers[wrong]} here",
            where="the tokens of the adapter",
            fix="use adapters with the same new tokens, each on the base that its card names",
        )
    return other


def _add(tokenizer: Any, token: str, *, taken: Mapping[str, int]) -> None:
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])
    number = tokenizer.convert_tokens_to_ids(token)
    if number in taken.values() or tokenizer(token, add_special_tokens=False)["input_ids"] != [number]:
        raise SettingsError(
            f"the base's tokenizer cannot take {token!r} as a token of its own", where=WHERE, fix="choose another name"
        )


def _refuse_alias(tokenizer: Any, token: str, number: int) -> None:
    """Refuse a word that stands for something else than its letters, as `é` for a byte."""
    alone = tokenizer(token, add_special_tokens=False)["input_ids"]
    inside = tokenizer(f"a{token}", add_special_tokens=False)["input_ids"]
    if number not in (*alone[-1:], *inside[-1:]):
        raise SettingsError(
            f"the base's tokenizer has a word {token!r}, and does not read it from that text",
            where=WHERE,
            fix="choose another name",
        )


def _hides(token: str, added: str) -> bool:
    """Whether a text can hold both with characters in common, the token first, so that `added` would be missed."""
    return added in token or any(token.endswith(added[:size]) for size in range(1, min(len(token), len(added))))
