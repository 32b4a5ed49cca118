"""Rows fitted to `max_length`: contexts are truncated and running text is cut at sections; questions and answers never.

Every lost token is counted. A row that cannot be fitted stays as it is; preflight refuses it or leaves it out.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from lora_med.errors import DataError, SettingsError
from lora_med.prompts.row import Row, shortened
from lora_med.prompts.tokens_and_labels import Tokens, tokenize, tokenize_rows

QUANTILES = (0, 10, 50, 90, 99, 100)
BLOCK = 256
SHOWN_UIDS = 5
TRIES = 8  # to truncate a context: tokens at its new end may differ by one or two
logger = logging.getLogger(__name__)


def fit_rows(rows: Sequence[Row], tokenizer: Any, max_length: int) -> list[Tokens]:
    """The tokens of each row; a row longer than `max_length` is fitted in the way its `too_long` allows.

    Contexts are truncated here. Running text keeps its length and gets token `breaks`, for `chunk`.
    """
    fitted = tokenize_rows(rows, tokenizer)
    for index, (row, tokens) in enumerate(zip(rows, fitted, strict=True)):
        if len(tokens.input_ids) > max_length:
            if tokens.running and row.breaks:
                fitted[index] = replace(tokens, breaks=_break_positions(row, tokens, tokenizer))
            elif row.too_long == "trim_context" and row.context[1] > row.context[0]:
                fitted[index] = _trimmed(row, tokens, tokenizer, max_length)
    return fitted


@dataclass
class Refused:
    """The rows that the base's chat template refuses: with `skip` they are left out, else the first stops the run."""

    skip: bool = False
    uids: list[str] = field(default_factory=list)

    def log(self, what: str) -> None:
        """Report the rows that were left out of the split `what`."""
        if self.uids:
            logger.warning(
                "%s: %d rows that the base's chat template refuses are left out: uid %s",
                what,
                len(self.uids),
                ", ".join(self.uids[:SHOWN_UIDS]) + (" and more" if len(self.uids) > SHOWN_UIDS else ""),
            )


def fit_stream(rows: Iterable[Row], tokenizer: Any, max_length: int, refused: Refused) -> Iterator[Tokens]:
    """The tokens of each row as `fit_rows` gives them, in blocks of 256; rows that are refused are added to `refused`.

    Raises:
        DataError: the base's chat template refuses a row, and `refused.skip` is false.
    """
    rows = iter(rows)
    while block := list(islice(rows, BLOCK)):
        try:
            fitted = fit_rows(block, tokenizer, max_length)
        except DataError:
            if not refused.skip:
                raise
            fitted = [tokens for row in block for tokens in _unless_refused(row, tokenizer, max_length, refused)]
        yield from fitted


def _unless_refused(row: Row, tokenizer: Any, max_length: int, refused: Refused) -> list[Tokens]:
    try:
        return fit_rows([row], tokenizer, max_length)
    except DataError:
        refused.uids.append(row.uid)
        return []


def _break_positions(row: Row, tokens: Tokens, tokenizer: Any) -> tuple[int, ...]:
    """The positions of the tokens that begin at the row's breaks; none if the text is not tokenized in one piece."""
    encoded = tokenizer(row.completion, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    lead = int(tokens.bos)
    ids = encoded["input_ids"]
    if tokens.input_ids[lead : lead + len(ids)] != ids:
        return ()
    starts = [start for start, _ in encoded["offset_mapping"]]
    positions = (lead + max(0, bisect_right(starts, offset) - 1) for offset in row.breaks)
    return tuple(dict.fromkeys(position for position in positions if lead < position < len(tokens.input_ids)))


def _trimmed(row: Row, tokens: Tokens, tokenizer: Any, max_length: int) -> Tokens:
    length = len(tokens.input_ids)
    start, end = row.context
    prompt = row.turns[-2][1] if row.turns else row.prompt
    context = tokenizer(
        prompt[start:end],
        add_special_tokens=False,
        split_special_tokens=True,  # as in `tokenize`: data is never a control token
        return_offsets_mapping=True,
        verbose=False,
    )
    offsets = context["offset_mapping"]
    keep = len(offsets) - (length - max_length)
    for _ in range(TRIES):
        if keep <= 0:
            break
        shorter = tokenize(shortened(row, offsets[keep - 1][1]), tokenizer)
        if len(shorter.input_ids) <= max_length:
            return replace(shorter, lost=length - len(shorter.input_ids))
        keep -= len(shorter.input_ids) - max_length
    return tokens


def chunk(tokens: Tokens, max_length: int) -> list[Tokens]:
    """Plain text cut into rows of at most `max_length` tokens; each token is trained in exactly one row.

    A row without a token to train is left out.

    A row ends where a section begins, if that is in its second half; otherwise it has the full length. Each row begins
    with BOS. Without a BOS it begins with the previous token, untrained, so that every token is still predicted.

    Raises:
        SettingsError: the row is a prompt or conversation, which is never cut, or `max_length` is under 2.
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
        if any(learned[1:]):  # otherwise the row has no trained token, for example only typed tags
            yield replace(tokens, input_ids=row, trained=learned, breaks=())
        start = end


def _end(breaks: Sequence[int], start: int, furthest: int, length: int) -> int:
    if furthest >= length:
        return length
    least = start + (furthest - start) // 2  # a cut before this would leave most of the row empty
    return max((position for position in breaks if least < position <= furthest), default=furthest)


def quantiles(lengths: Iterable[int]) -> dict[str, int]:
    """Quantiles of the lengths, from the shortest to the longest, by the share of rows that are not longer."""
    ordered = sorted(lengths)
    return {f"{share}%": ordered[round(share / 100 * (len(ordered) - 1))] for share in QUANTILES} if ordered else {}
