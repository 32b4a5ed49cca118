"""Log-probabilities of given tokens under a causal language model: batched by length, equal to one row at a time.

Everything here is numbers in, numbers out: rows of token ids and the (position, token) pairs wanted from each. The
options of a question share one row (shared_prefix_scoring.py). Where a model does not allow that, options share a
forward pass if the input of one begins the input of another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lora_med.evaluation.likelihood.batch_size import fitting
from lora_med.evaluation.likelihood.shared_prefix_scoring import (
    LOGITS_BYTES,
    SOFTMAX_ROWS,
    can_share_prefixes,
    cut_left,
    question_row,
    score_question_rows,
)
from lora_med.models.generation import RunBatches, in_order, run_rows
from lora_med.models.limits.not_finite import not_finite

BATCH_TOKENS = 4096
Read = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits and tokens, a line each -> numbers


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row to run: its tokens, and the log-probabilities to read.

    `tokens[i]` is looked up in the prediction made at `positions[i]`, that is after `input_ids[: positions[i] + 1]`.
    """

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]
    tokens: tuple[int, ...]


def windows(input_ids: Sequence[int], first: int, context: int) -> list[ScoredRow]:
    """Rows of at most `context` tokens that together score every token from index `first` (>= 1) exactly once.

    The first row holds what fits. Each later row begins with the item's first token (BOS) and half a context of tokens
    already scored, so that every token has a context to be predicted from.
    """
    rows: list[ScoredRow] = []
    begin, scored, size = 0, first, len(input_ids)
    while scored < size:
        end = min(size, begin + context if begin == 0 else begin + context - 1)
        head = () if begin == 0 else (input_ids[0],)
        shift = begin - len(head)
        rows.append(
            ScoredRow(
                (*head, *input_ids[begin:end]),
                tuple(index - 1 - shift for index in range(scored, end)),
                tuple(input_ids[scored:end]),
            )
        )
        scored = end
        begin = end - context // 2
    return rows


def option_rows(
    prompt: Sequence[int], options: Sequence[Sequence[int]], context: int
) -> tuple[list[ScoredRow], list[int]]:
    """Rows that score every option after the prompt, and the row of each option.

    An option whose input (all but its last token) begins another's is read from the same row, so options of one token
    cost one row in all. If the longest option does not fit, the prompt is cut on the left, the same for every option;
    its first token (BOS) stays.
    """
    inputs = sorted({tuple(option[:-1]) for option in options}, key=len, reverse=True)
    rows: list[tuple[int, ...]] = []
    for ids in inputs:
        if not any(row[: len(ids)] == ids for row in rows):
            rows.append(ids)
    row_of_option = [
        next(n for n, row in enumerate(rows) if row[: len(option) - 1] == tuple(option[:-1])) for option in options
    ]
    shortened = cut_left(prompt, context - max(map(len, rows)))
    scored: list[ScoredRow] = []
    for number, row in enumerate(rows):
        row_options = [
            option for option, row_number in zip(options, row_of_option, strict=True) if row_number == number
        ]
        positions = tuple(len(shortened) - 1 + index for option in row_options for index in range(len(option)))
        scored.append(
            ScoredRow((*shortened, *row), positions, tuple(token for option in row_options for token in option))
        )
    return scored, row_of_option


def batches(lengths: Sequence[int], vocabulary: int, *, batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices of rows, longest first, in batches of at most `batch_tokens` tokens, padding included.

    The limit shrinks for large vocabularies, whose logits would fill the memory. A row longer than the limit runs
    alone.
    """
    limit = max(1, min(batch_tokens, LOGITS_BYTES // (4 * vocabulary)))
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batched: list[list[int]] = []
    for index in order:
        if batched and (len(batched[-1]) + 1) * lengths[batched[-1][0]] <= limit:
            batched[-1].append(index)
        else:
            batched.append([index])
    return batched


def log_probability(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The log-probability of each token under its line of logits."""
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)


def _read(
    logits: torch.Tensor, line: torch.Tensor, column: torch.Tensor, tokens: torch.Tensor, read: Read
) -> torch.Tensor:
    """What `read` finds of each token at its (line, column); a block at a time, as logits are large."""
    blocks = []
    for begin in range(0, len(tokens), SOFTMAX_ROWS):
        block = slice(begin, begin + SOFTMAX_ROWS)
        blocks.append(read(logits[line[block], column[block]].float(), tokens[block]))
    return torch.cat(blocks).double()


def _batch(model: Any, rows: Sequence[ScoredRow], device: torch.device, read: Read) -> list[NDArray[np.float64]]:
    width = max(len(row.input_ids) for row in rows)
    ids = torch.tensor([[*row.input_ids, *([0] * (width - len(row.input_ids)))] for row in rows], device=device)
    positions = sorted({position for row in rows for position in row.positions})
    index_of = {position: index for index, position in enumerate(positions)}
    # Padding is on the right, where no real token looks; a mask of ones keeps the fused causal kernel.
    output = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        use_cache=False,
        logits_to_keep=torch.tensor(positions, device=device),
    )
    line = torch.tensor([number for number, row in enumerate(rows) for _ in row.positions], device=device)
    column = torch.tensor([index_of[position] for row in rows for position in row.positions], device=device)
    tokens = torch.tensor([token for row in rows for token in row.tokens], device=device)
    values = _read(output.logits, line, column, tokens, read).cpu().numpy()
    ends = np.cumsum([len(row.tokens) for row in rows])
    return np.split(values, ends[:-1])


def log_probabilities(
    model: Any, rows: Sequence[ScoredRow], *, batch_tokens: int = BATCH_TOKENS, run: RunBatches = in_order
) -> list[NDArray[np.float64]]:
    """Natural log-probabilities, one array per row, in the order of its `tokens`; computed in fp32 from the logits.

    Args:
        run: runs the batches.

    Raises:
        DivergedError: the model returns values that are not finite.
    """
    return read_rows(model, rows, log_probability, batch_tokens=batch_tokens, run=run)


def read_rows(
    model: Any,
    rows: Sequence[ScoredRow],
    read: Read,
    *,
    batch_tokens: int = BATCH_TOKENS,
    run: RunBatches = in_order,
) -> list[NDArray[np.float64]]:
    """What `read` finds of the tokens of each row, from fp32 logits and the tokens at their lines; see above."""
    device = next(model.parameters()).device
    lengths = [len(row.input_ids) for row in rows]
    batch_tokens = fitting(batch_tokens, device)
    batched = batches(lengths, model.config.get_text_config().vocab_size, batch_tokens=batch_tokens)
    with torch.no_grad():  # not inference_mode: weights that FSDP gathers there cannot be trained on after it
        results = run_rows(run, batched, lambda batch: _batch(model, [rows[index] for index in batch], device, read))
    _refuse_not_finite(model, [row.input_ids for row in rows], results)
    return results


def _refuse_not_finite(model: Any, inputs: Sequence[Sequence[int]], results: Sequence[NDArray[np.float64]]) -> None:
    wrong = [number for number, values in enumerate(results) if not np.isfinite(values).all()]
    if wrong:
        raise not_finite(model, inputs[wrong[0]], f"{len(wrong)} of {len(results)} scored rows")


def token_nll(
    model: Any,
    items: Sequence[tuple[Sequence[int], int]],
    context: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    run: RunBatches = in_order,
) -> list[NDArray[np.float64]]:
    """Negative log-likelihood in nats of each token of each item `(input_ids, first)` from index `first` on."""
    rows: list[ScoredRow] = []
    owner: list[int] = []
    for number, (ids, first) in enumerate(items):
        item_rows = windows(ids, first, context)
        rows += item_rows
        owner += [number] * len(item_rows)
    pieces: list[list[NDArray[np.float64]]] = [[np.empty(0)] for _ in items]
    for number, values in zip(owner, log_probabilities(model, rows, batch_tokens=batch_tokens, run=run), strict=True):
        pieces[number].append(-values)
    return [np.concatenate(item_pieces) for item_pieces in pieces]


def score_text(
    model: Any,
    items: Sequence[tuple[Sequence[int], int] | tuple[Sequence[int], int, Collection[int]]],
    context: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    run: RunBatches = in_order,
) -> list[float]:
    """Negative log-likelihood in nats of each item, summed over its tokens.

    Args:
        items: `(input_ids, first)` or `(input_ids, first, unscored)`: tokens from index `first` on, except the indices
            `unscored`.
    """
    nlls = token_nll(model, [(item[0], item[1]) for item in items], context, batch_tokens=batch_tokens, run=run)
    for item, values in zip(items, nlls, strict=True):
        if len(item) == 3:
            values[[index - item[1] for index in item[2]]] = 0.0
    return [float(values.sum()) for values in nlls]


def score_options(
    model: Any,
    items: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    context: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    run: RunBatches = in_order,
) -> list[list[float]]:
    """Summed log-probability of each option after its prompt, for items `(prompt_ids, options' ids)`.

    Raises:
        DivergedError: the model returns values that are not finite.
    """
    rows = [question_row(prompt, options, context) for prompt, options in items]
    if not can_share_prefixes(model, max((len(row.prompt) + max(map(len, row.options)) for row in rows), default=0)):
        return score_by_row(model, items, context, batch_tokens=batch_tokens, run=run)
    results = score_question_rows(model, rows, batch_tokens=batch_tokens, run=run)
    _refuse_not_finite(model, [row.prompt for row in rows], results)
    return [
        [float(part.sum()) for part in np.split(values, np.cumsum([len(option) for option in row.options])[:-1])]
        for row, values in zip(rows, results, strict=True)
    ]


def score_by_row(
    model: Any,
    items: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    context: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    run: RunBatches = in_order,
) -> list[list[float]]:
    """The results of `score_options` from ordinary rows, for models that accept no mask of another shape."""
    rows: list[ScoredRow] = []
    plans: list[tuple[int, list[int]]] = []
    for prompt, options in items:
        item_rows, row_of_option = option_rows(prompt, options, context)
        plans.append((len(rows), row_of_option))
        rows += item_rows
    values = log_probabilities(model, rows, batch_tokens=batch_tokens, run=run)
    scores: list[list[float]] = []
    for (_, options), (begin, row_of_option) in zip(items, plans, strict=True):
        read_so_far = [0] * (max(row_of_option) + 1)
        sums = []
        for option, row_number in zip(options, row_of_option, strict=True):
            option_values = values[begin + row_number][read_so_far[row_number] : read_so_far[row_number] + len(option)]
            read_so_far[row_number] += len(option)
            sums.append(float(option_values.sum()))
        scores.append(sums)
    return scores
