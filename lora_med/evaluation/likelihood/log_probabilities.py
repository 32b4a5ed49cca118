"""Log-probabilities of given tokens under a causal language model: batched by length, equal to one row at a time.

Everything here is numbers in, numbers out: rows of token ids and the (position, token) pairs wanted from each. The
options of a question share one row (branches.py); where a model does not allow that, they share a forward pass wherever
one's input is the beginning of another's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lora_med.errors import DivergedError
from lora_med.evaluation.likelihood.shared_prefix_scoring import (
    LOGITS_BYTES,
    SOFTMAX_ROWS,
    branch,
    can_branch,
    cut_left,
    score_branched,
)

BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Wanted:
    """One row to run: its tokens, and the log-probabilities to read off.

    `tokens[i]` is looked up in the prediction made at `positions[i]`, that is after `input_ids[: positions[i] + 1]`.
    """

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]
    tokens: tuple[int, ...]


def windows(input_ids: Sequence[int], first: int, context: int) -> list[Wanted]:
    """Rows of at most `context` tokens that together score every token from index `first` (>= 1) exactly once.

    The first row holds what fits. Each later row begins with the item's first token (BOS), then half a context of
    tokens already scored, so that no token is predicted from almost nothing.
    """
    rows: list[Wanted] = []
    begin, scored, size = 0, first, len(input_ids)
    while scored < size:
        end = min(size, begin + context if begin == 0 else begin + context - 1)
        head = () if begin == 0 else (input_ids[0],)
        shift = begin - len(head)
        rows.append(
            Wanted(
                (*head, *input_ids[begin:end]),
                tuple(index - 1 - shift for index in range(scored, end)),
                tuple(input_ids[scored:end]),
            )
        )
        scored = end
        begin = end - context // 2
    return rows


def shared(prompt: Sequence[int], options: Sequence[Sequence[int]], context: int) -> tuple[list[Wanted], list[int]]:
    """Rows that score every option after the prompt, and the row of each option; a cut prompt loses its beginning.

    An option whose input (all but its last token) begins another's is read off the same row, so options of one token
    cost one row in all. A prompt that leaves no room for the longest option is cut on the left, the same for every
    option, and its first token (BOS) stays.
    """
    inputs = sorted({tuple(option[:-1]) for option in options}, key=len, reverse=True)
    rows: list[tuple[int, ...]] = []
    for ids in inputs:
        if not any(row[: len(ids)] == ids for row in rows):
            rows.append(ids)
    home = [next(n for n, row in enumerate(rows) if row[: len(option) - 1] == tuple(option[:-1])) for option in options]
    kept = cut_left(prompt, context - max(map(len, rows)))
    found: list[Wanted] = []
    for number, row in enumerate(rows):
        mine = [option for option, where in zip(options, home, strict=True) if where == number]
        positions = tuple(len(kept) - 1 + index for option in mine for index in range(len(option)))
        found.append(Wanted((*kept, *row), positions, tuple(token for option in mine for token in option)))
    return found, home


def batches(lengths: Sequence[int], vocabulary: int, *, batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices of rows, longest first, in batches of at most `batch_tokens` tokens, padding included.

    The limit shrinks for large vocabularies, whose logits would fill the memory; a row too long for it goes alone.
    """
    limit = max(1, min(batch_tokens, LOGITS_BYTES // (4 * vocabulary)))
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    found: list[list[int]] = []
    for index in order:
        if found and (len(found[-1]) + 1) * lengths[found[-1][0]] <= limit:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def _read(logits: torch.Tensor, line: torch.Tensor, column: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each token at its (line, column); a block at a time, as logits are large."""
    parts = []
    for begin in range(0, len(tokens), SOFTMAX_ROWS):
        block = slice(begin, begin + SOFTMAX_ROWS)
        rows = logits[line[block], column[block]].float()
        parts.append(rows.gather(1, tokens[block, None])[:, 0] - rows.logsumexp(1))
    return torch.cat(parts).double()


def _batch(model: Any, rows: Sequence[Wanted], device: torch.device) -> list[NDArray[np.float64]]:
    width = max(len(row.input_ids) for row in rows)
    ids = torch.tensor([[*row.input_ids, *([0] * (width - len(row.input_ids)))] for row in rows], device=device)
    places = sorted({place for row in rows for place in row.positions})
    kept = {place: index for index, place in enumerate(places)}
    # Padding stands on the right, where no real token looks; a mask of ones keeps the fused causal kernel.
    output = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        use_cache=False,
        logits_to_keep=torch.tensor(places, device=device),
    )
    line = torch.tensor([number for number, row in enumerate(rows) for _ in row.positions], device=device)
    column = torch.tensor([kept[place] for row in rows for place in row.positions], device=device)
    tokens = torch.tensor([token for row in rows for token in row.tokens], device=device)
    values = _read(output.logits, line, column, tokens).cpu().numpy()
    ends = np.cumsum([len(row.tokens) for row in rows])
    return np.split(values, ends[:-1])


def log_probabilities(
    model: Any, rows: Sequence[Wanted], *, batch_tokens: int = BATCH_TOKENS
) -> list[NDArray[np.float64]]:
    """Natural log-probabilities, one array per row, in the order of its `tokens`; computed in fp32 from the logits.

    Raises:
        DivergedError: the model gives values that are not finite.
    """
    device = next(model.parameters()).device
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(rows)
    lengths = [len(row.input_ids) for row in rows]
    with torch.no_grad():  # not inference_mode: weights that FSDP gathers there cannot be trained on after it
        for batch in batches(lengths, model.config.vocab_size, batch_tokens=batch_tokens):
            for index, values in zip(batch, _batch(model, [rows[i] for i in batch], device), strict=True):
                found[index] = values
    _refuse_broken(found)
    return found


def _refuse_broken(found: Sequence[NDArray[np.float64]]) -> None:
    broken = sum(not np.isfinite(values).all() for values in found)
    if broken:
        raise DivergedError(
            f"{broken} of {len(found)} scored rows have a log-probability that is not finite",
            fix="the weights hold NaN or infinities: lora-med adapters verify NAME",
        )


def token_nll(
    model: Any, items: Sequence[tuple[Sequence[int], int]], context: int, *, batch_tokens: int = BATCH_TOKENS
) -> list[NDArray[np.float64]]:
    """Negative log-likelihood in nats of each token of each item `(input_ids, first)` from index `first` on."""
    rows: list[Wanted] = []
    owner: list[int] = []
    for number, (ids, first) in enumerate(items):
        cut = windows(ids, first, context)
        rows += cut
        owner += [number] * len(cut)
    parts: list[list[NDArray[np.float64]]] = [[np.empty(0)] for _ in items]
    for number, values in zip(owner, log_probabilities(model, rows, batch_tokens=batch_tokens), strict=True):
        parts[number].append(-values)
    return [np.concatenate(one) for one in parts]


def score_text(
    model: Any,
    items: Sequence[tuple[Sequence[int], int] | tuple[Sequence[int], int, Collection[int]]],
    context: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[float]:
    """Negative log-likelihood in nats of each item, summed over its tokens.

    Args:
        items: `(input_ids, first)` or `(input_ids, first, unscored)`: tokens from index `first` on, less those places.
    """
    found = token_nll(model, [(one[0], one[1]) for one in items], context, batch_tokens=batch_tokens)
    for one, values in zip(items, found, strict=True):
        if len(one) == 3:
            values[[place - one[1] for place in one[2]]] = 0.0
    return [float(values.sum()) for values in found]


def score_options(
    model: Any,
    items: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    context: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[float]]:
    """Summed log-probability of each option after its prompt, for items `(prompt_ids, options' ids)`.

    Raises:
        DivergedError: the model gives values that are not finite.
    """
    branched = [branch(prompt, options, context) for prompt, options in items]
    if not can_branch(model, max((len(row.prompt) + max(map(len, row.options)) for row in branched), default=0)):
        return score_by_row(model, items, context, batch_tokens=batch_tokens)
    found = score_branched(model, branched, batch_tokens=batch_tokens)
    _refuse_broken(found)
    return [
        [float(part.sum()) for part in np.split(values, np.cumsum([len(option) for option in row.options])[:-1])]
        for row, values in zip(branched, found, strict=True)
    ]


def score_by_row(
    model: Any,
    items: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    context: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[float]]:
    """What `score_options` gives, from ordinary rows, for models that take no mask of another shape."""
    rows: list[Wanted] = []
    plans: list[tuple[int, list[int]]] = []
    for prompt, options in items:
        mine, home = shared(prompt, options, context)
        plans.append((len(rows), home))
        rows += mine
    values = log_probabilities(model, rows, batch_tokens=batch_tokens)
    found: list[list[float]] = []
    for (_, options), (begin, home) in zip(items, plans, strict=True):
        used = [0] * (max(home) + 1)
        sums = []
        for option, where in zip(options, home, strict=True):
            part = values[begin + where][used[where] : used[where] + len(option)]
            used[where] += len(option)
            sums.append(float(part.sum()))
        found.append(sums)
    return found
