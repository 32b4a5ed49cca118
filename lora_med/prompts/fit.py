"""Rows fitted to a length: contexts shortened, running text cut where a section begins; a question or answer never is.

Every token that is lost is counted. What cannot be fitted is left as it is, for preflight to refuse or leave out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lora_med.errors import SettingsError
from lora_med.prompts.row import Row, shortened
from lora_med.prompts.tokens import Tokens, tokenize, tokenize_rows

QUANTILES = (0, 10, 50, 90, 99, 100)
TRIES = 8  # of shortening a context: tokens at its new end may differ by one or two


def fit_rows(rows: Sequence[Row], tokenizer: Any, max_length: int) -> list[Tokens]:
    """The tokens of each row; where one is longer than `max_length`, what its `too_long` allows has been done.

    Contexts are shortened here. Running text keeps its length and learns its `breaks`, for `chunk`.
    """
    found = tokenize_rows(rows, tokenizer)
    for place, (row, tokens) in enumerate(zip(rows, found, strict=True)):
        if len(tokens.input_ids) > max_length:
            if tokens.running and row.breaks:
                found[place] = replace(tokens, breaks=_token_places(row, tokens, tokenizer))
            elif row.too_long == "trim_context" and row.context[1] > row.context[0]:
                found[place] = _trimmed(row, tokens, tokenizer, max_length)
    return found


def _token_places(row: Row, tokens: Tokens, tokenizer: Any) -> tuple[int, ...]:
    """Where in the row the tokens stand that begin at its breaks; none if the text is not tokenized in one piece."""
    encoded = tokenizer(row.completion, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    lead = int(tokens.bos)
    ids = encoded["input_ids"]
    if tokens.input_ids[lead : lead + len(ids)] != ids:
        return ()
    starts = [start for start, _ in encoded["offset_mapping"]]
    places = (lead + max(0, bisect_right(starts, offset) - 1) for offset in row.breaks)
    return tuple(dict.fromkeys(place for place in places if lead < place < len(tokens.input_ids)))


def _trimmed(row: Row, tokens: Tokens, tokenizer: Any, max_length: int) -> Tokens:
    whole = len(tokens.input_ids)
    start, end = row.context
    asked = row.turns[-2][1] if row.turns else row.prompt
    context = tokenizer(
        asked[start:end],
        add_special_tokens=False,
        split_special_tokens=True,  # as tokenized: what looks like a control token in the data is none
        return_offsets_mapping=True,
        verbose=False,
    )
    offsets = context["offset_mapping"]
    keep = len(offsets) - (whole - max_length)
    for _ in range(TRIES):
        if keep <= 0:
            break
        shorter = tokenize(shortened(row, offsets[keep - 1][1]), tokenizer)
        if len(shorter.input_ids) <= max_length:
            return replace(shorter, lost=whole - len(shorter.input_ids))
        keep -= len(shorter.input_ids) - max_length
    return tokens


def chunk(tokens: Tokens, max_length: int) -> list[Tokens]:
    """Plain text cut into rows of at most `max_length` tokens; each token is trained in one row only, none is lost.

    A row without a token to train is left out.

    A row ends where a section begins, if one does in the second half of its length, else where the length ends.
    Each row begins with BOS. Without a BOS it begins with the token before it, untrained, so that the cut costs no
    token its prediction.

    Raises:
        SettingsError: the row is a prompt or conversation, which must not be cut, or `max_length` is under 2.
    """
    if len(tokens.input_ids) <= max_length:
        return [tokens]
    if max_length < 2 or not tokens.running:
        raise SettingsError(
            f"row {tokens.uid} of {len(tokens.input_ids)} tokens cannot be cut to {max_length}: only plain text can, "
            "to 2 or more",
            where="train.max_length",
        )
    return list(_chunks(tokens, max_length))


def _chunks(tokens: Tokens, max_length: int) -> Iterator[Tokens]:
    ids, trained = tokens.input_ids, tokens.trained
    start = 0
    while start < len(ids):
        end = _end(tokens.breaks, start, start + max_length - (start > 0), len(ids))
        if start == 0:
            head, untrained = [], []
        else:
            head, untrained = [ids[0] if tokens.bos else ids[start - 1]], [False]
        row, learned = head + ids[start:end], untrained + trained[start:end]
        if any(learned[1:]):  # else nothing is learned from it: typed tags alone, or what the row before it predicts
            yield replace(tokens, input_ids=row, trained=learned, breaks=())
        start = end


def _end(breaks: Sequence[int], start: int, furthest: int, length: int) -> int:
    if furthest >= length:
        return length
    least = start + (furthest - start) // 2  # a section that begins earlier would leave most of the row empty
    return max((place for place in breaks if least < place <= furthest), default=furthest)


def quantiles(lengths: Iterable[int]) -> dict[str, int]:
    """The shortest, the longest, and what stands between, by the share of rows that are no longer."""
    ordered = sorted(lengths)
    return {f"{share}%": ordered[round(share / 100 * (len(ordered) - 1))] for share in QUANTILES} if ordered else {}


def lost_tokens(documents: Iterable[Tokens]) -> tuple[int, int]:
    """How many rows lost tokens of their context, and how many tokens in all."""
    lost = [document.lost for document in documents if document.lost]
    return len(lost), sum(lost)
