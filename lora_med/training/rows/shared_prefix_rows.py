"""Documents that begin alike, as one: their common beginning once, and behind it what each goes on with.

Several questions about one abstract repeat the abstract, rows under one system prompt repeat the prompt. As a tree the
repeated part is computed once. Each branch sees the trunk and itself, at the positions it would have alone, so loss and
gradient are those of the documents one by one. Only what no document is trained on is shared: a trained token counts
once for each document it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_med.prompts.tokens import Tokens

LEAST_TRUNK = 32  # tokens; sharing fewer saves less than the extra attention calls cost


@dataclass(frozen=True, slots=True)
class Tree(Tokens):
    """A trunk and its branches end to end; `lengths` are those of the trunk and of each branch, in this order.

    No branch begins with a trained token: what predicts a trained token stands right before it.
    """

    lengths: tuple[int, ...] = ()


def grow_trees(documents: Sequence[Tokens], max_length: int) -> list[Tokens]:
    """The documents, those with a long common beginning joined to trees of at most `max_length` tokens.

    In the order of their tokens a document joins the tree before it where at least `LEAST_TRUNK` tokens and half of the
    trunk so far are common, which then is the trunk. The order given back is that of each one's first document.
    """
    order = sorted(range(len(documents)), key=lambda place: documents[place].input_ids)
    groups: list[tuple[list[int], int]] = []  # places of the documents, and how long their common beginning is
    members: list[int] = []
    trunk = 0
    for place in order:
        found = _common(documents[members[-1]], documents[place], trunk) if members else 0
        if found >= LEAST_TRUNK and 2 * found >= trunk and _size(documents, [*members, place], found) <= max_length:
            members.append(place)
            trunk = found
            continue
        if members:
            groups.append((members, trunk))
        members, trunk = [place], _prompt(documents[place])
    if members:
        groups.append((members, trunk))
    grown = {min(places): _join([documents[one] for one in sorted(places)], trunk) for places, trunk in groups}
    return [grown[place] for place in sorted(grown)]


def _prompt(document: Tokens) -> int:
    """How many tokens at most can be in a trunk: all before the first trained one but the last, which predicts it."""
    trained = next((place for place, one in enumerate(document.trained) if one), len(document.trained))
    return max(trained - 1, 0)


def _common(one: Tokens, other: Tokens, limit: int) -> int:
    """How many tokens two documents begin with in common, of those that may be in a trunk."""
    limit = min(limit, _prompt(other))
    first, second = one.input_ids[:limit], other.input_ids[:limit]
    if first == second:
        return len(first)
    return next(place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)


def _size(documents: Sequence[Tokens], places: Sequence[int], trunk: int) -> int:
    return trunk + sum(len(documents[place].input_ids) - trunk for place in places)


def _join(documents: list[Tokens], trunk: int) -> Tokens:
    if len(documents) == 1:
        return documents[0]
    first = documents[0]
    return Tree(
        uid=first.uid,
        input_ids=first.input_ids[:trunk] + [token for one in documents for token in one.input_ids[trunk:]],
        trained=first.trained[:trunk] + [flag for one in documents for flag in one.trained[trunk:]],
        lengths=(trunk, *(len(one.input_ids) - trunk for one in documents)),
    )
