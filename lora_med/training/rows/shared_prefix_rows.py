"""Documents with a common beginning, joined: the shared prefix once, and behind it the continuation of each document.

Several questions about one abstract repeat the abstract; rows under one system prompt repeat the prompt. Joined, the
repeated tokens are computed once. Each continuation sees the prefix and itself, at the positions it would have alone.
So loss and gradient equal those of the documents one by one. Only untrained tokens are shared: a trained token counts
once for each document that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_med.prompts.tokens_and_labels import Tokens

MIN_PREFIX_TOKENS = 32  # sharing fewer saves less than the extra attention calls cost


@dataclass(frozen=True, slots=True)
class SharedPrefix(Tokens):
    """A prefix and its continuations end to end; `lengths` are those of the prefix and of each continuation, in order.

    No continuation begins with a trained token: the token that predicts a trained token must be right before it.
    """

    lengths: tuple[int, ...] = ()


def join_shared_prefixes(documents: Sequence[Tokens], max_length: int) -> list[Tokens]:
    """The documents; those with a long common beginning are joined, up to `max_length` tokens each.

    Documents are compared in the order of their tokens. One joins the group before it where at least
    `MIN_PREFIX_TOKENS` tokens and half of the prefix so far are common; these then are the prefix. The result is in the
    order of each group's first document.
    """
    order = sorted(range(len(documents)), key=lambda index: documents[index].input_ids)
    groups: list[tuple[list[int], int]] = []  # indexes of the documents, and the length of their common beginning
    members: list[int] = []
    prefix = 0
    for index in order:
        common = _common(documents[members[-1]], documents[index], prefix) if members else 0
        fits = _size(documents, [*members, index], common) <= max_length
        if common >= MIN_PREFIX_TOKENS and 2 * common >= prefix and fits:
            members.append(index)
            prefix = common
            continue
        if members:
            groups.append((members, prefix))
        members, prefix = [index], _prompt(documents[index])
    if members:
        groups.append((members, prefix))
    joined = {min(group): _join([documents[index] for index in sorted(group)], prefix) for group, prefix in groups}
    return [joined[index] for index in sorted(joined)]


def _prompt(document: Tokens) -> int:
    """The most tokens that can be shared: all before the first trained one except the last, which predicts it."""
    trained = next((index for index, flag in enumerate(document.trained) if flag), len(document.trained))
    return max(trained - 1, 0)


def _common(document: Tokens, other: Tokens, limit: int) -> int:
    """How many tokens at the beginning two documents have in common, of those that may be shared."""
    limit = min(limit, _prompt(other))
    first, second = document.input_ids[:limit], other.input_ids[:limit]
    if first == second:
        return len(first)
    return next(index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)


def _size(documents: Sequence[Tokens], members: Sequence[int], prefix: int) -> int:
    return prefix + sum(len(documents[index].input_ids) - prefix for index in members)


def _join(documents: list[Tokens], prefix: int) -> Tokens:
    if len(documents) == 1:
        return documents[0]
    first = documents[0]
    return SharedPrefix(
        uid=first.uid,
        input_ids=first.input_ids[:prefix] + [token for document in documents for token in document.input_ids[prefix:]],
        trained=first.trained[:prefix] + [flag for document in documents for flag in document.trained[prefix:]],
        lengths=(prefix, *(len(document.input_ids) - prefix for document in documents)),
    )
