"""Packing: which documents share a row, from their lengths alone."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from lora_med.prompts.tokens_and_labels import Tokens

Document = TypeVar("Document", bound=Tokens)


def pack(documents: Sequence[Document], max_length: int) -> list[list[Document]]:
    """Documents in groups of at most `max_length` tokens: best fit, the longest first, no document cut."""
    groups = pack_lengths([len(document.input_ids) for document in documents], max_length)
    return [[documents[index] for index in group] for group in groups]


def pack_lengths(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """The same by the documents' numbers."""
    sizes = np.asarray(lengths, np.int64)
    spaces: list[int] = []  # free tokens of the open groups, ascending, each once
    members: dict[int, list[list[int]]] = {}  # free tokens -> the groups that have them
    groups: list[list[int]] = []
    for number, size in zip(np.argsort(-sizes, kind="stable").tolist(), -np.sort(-sizes), strict=True):
        index = bisect.bisect_left(spaces, size)
        if index < len(spaces):
            space = spaces[index]
            group = members[space].pop()
            if not members[space]:
                del members[space], spaces[index]
        else:
            space, group = max_length, []
            groups.append(group)
        group.append(number)
        left = space - int(size)
        if left not in members:
            bisect.insort(spaces, left)
            members[left] = []
        members[left].append(group)
    return groups
