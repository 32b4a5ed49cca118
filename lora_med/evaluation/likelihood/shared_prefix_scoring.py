"""Questions scored with nothing computed twice: options share their prompt, and prompts share a prefix.

A question is one row: its prompt, then the tokens of its options as continuations. Each token sees the prompt and its
own option's earlier tokens (a 4-D mask), at the position it would have in a row of its own (position ids). A prefix of
many prompts, such as the solved examples of a k-shot prompt, runs once; all rows use its keys and values. The head runs
on the scored positions only. In float32 the scores equal those of one row for each option, up to rounding.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from lora_med.evaluation.likelihood.batch_size import fitting
from lora_med.evaluation.likelihood.prefix_cache import CurrentPrefix
from lora_med.models.generation import RunBatches, in_order, run_rows

LOGITS_BYTES = 1 << 28
SOFTMAX_ROWS = 256
LEAST_PREFIX = 16  # tokens; a shorter prefix costs more in masks than it saves
PREFIX_SHARE = 8  # a batch may use this many times `batch_tokens` in the prefix's keys and values
MASKED = ("sdpa", "eager", "lora_med_sdpa")
LENGTH_BOUND_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question as one row: `prompt`, then `tokens`, token i following token `parents[i]` (-1: the prompt's end).

    Option k's tokens are `options[k]`; its i-th token is predicted at `offsets[k][i]`, counted like `parents`.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    offsets: tuple[tuple[int, ...], ...]

    @property
    def is_linear(self) -> bool:
        """Whether every token follows the one before it, so that the row needs no mask of its own."""
        return all(parent == index - 1 for index, parent in enumerate(self.parents))

    @property
    def scored_tokens(self) -> int:
        """How many tokens are scored."""
        return sum(map(len, self.options))


def question_row(prompt: Sequence[int], options: Sequence[Sequence[int]], context: int) -> QuestionRow:
    """The row of a question; options that begin alike share those tokens.

    If prompt and longest option exceed `context`, the prompt loses tokens after its first (BOS).
    """
    tokens: list[int] = []
    parents: list[int] = []
    indices: dict[tuple[int, int], int] = {}
    offsets: list[tuple[int, ...]] = []
    for option in options:
        current, path = -1, [-1]
        for token in option[:-1]:
            if (current, token) not in indices:
                indices[current, token] = len(tokens)
                tokens.append(token)
                parents.append(current)
            current = indices[current, token]
            path.append(current)
        offsets.append(tuple(path))
    shortened = cut_left(prompt, context - max(map(len, options)) + 1)
    return QuestionRow(shortened, tuple(tokens), tuple(parents), tuple(map(tuple, options)), tuple(offsets))


def cut_left(prompt: Sequence[int], length: int) -> tuple[int, ...]:
    """The prompt in at most `length` tokens: its first token and then its end."""
    if len(prompt) <= length:
        return tuple(prompt)
    return (prompt[0], *prompt[len(prompt) - max(0, length - 1) :]) if length > 1 else tuple(prompt[-1:])


def can_share_prefixes(model: Any, length: int) -> bool:
    """Whether the model accepts a mask of any shape and cached keys for rows of up to `length` tokens.

    Five kinds do not: recurrent layers, windows shorter than the row, positions given by distance alone (ALiBi),
    positions that depend on the row's length, and attention kernels without a mask.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    rope = getattr(config, "rope_parameters", None) or {}
    arguments = inspect.signature(model.forward).parameters
    return (
        {"position_ids", "past_key_values"} <= set(arguments)
        and kinds <= {"full_attention", "sliding_attention"}
        and (window is None or length <= window)
        and config._attn_implementation in MASKED
        and rope.get("rope_type") not in LENGTH_BOUND_ROPE
        and not getattr(config, "alibi", False)
        and not getattr(config, "num_kv_shared_layers", 0)
        and not getattr(model, "_is_stateful", False)
        and model.get_output_embeddings() is not None
    )


def shared_prefixes(prompts: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Groups of prompts as `(tokens in common, their numbers)`; a prompt keeps at least one token of its own.

    Prompts are compared in sorted order; a prompt joins a group if that saves at least as many tokens as it costs. All
    prompts that share too little form the group with 0 in common.
    """
    groups: list[tuple[int, list[int]]] = []
    unshared: list[int] = []
    common, group = 0, list[int]()
    for number in sorted(range(len(prompts)), key=lambda prompt_number: tuple(prompts[prompt_number])):
        shared = _common(prompts[group[-1]], prompts[number]) if group else 0
        group_common = min(common, shared) if len(group) > 1 else shared
        if group and len(group) * group_common >= (len(group) - 1) * common:
            common = group_common
            group.append(number)
            continue
        _close_group(groups, unshared, common, group)
        common, group = 0, [number]
    _close_group(groups, unshared, common, group)
    return [*groups, *([(0, sorted(unshared))] if unshared else [])]


def _close_group(groups: list[tuple[int, list[int]]], unshared: list[int], common: int, group: list[int]) -> None:
    if common >= LEAST_PREFIX and len(group) > 1:
        groups.append((common, sorted(group)))
    else:
        unshared += group


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    longest = min(len(first), len(second)) - 1
    return next((offset for offset in range(longest) if first[offset] != second[offset]), max(longest, 0))


def score_question_rows(
    model: Any, rows: Sequence[QuestionRow], *, batch_tokens: int, run: RunBatches = in_order
) -> list[NDArray[np.float64]]:
    """The log-probability of every token of every option, one array a row, the options one after another.

    `run` runs the batches, those with one prefix in a row, so that one prefix at a time is in memory.
    """
    device = next(model.parameters()).device
    vocabulary = model.config.get_text_config().vocab_size
    batches: list[list[int]] = []
    common_of: dict[int, int] = {}
    for common, group in shared_prefixes([row.prompt for row in rows]):
        common_of |= dict.fromkeys(group, common)
        group_rows, most = [rows[number] for number in group], fitting(batch_tokens, device)
        group_batches = _batches(group_rows, common, vocabulary, most, PREFIX_SHARE * batch_tokens)
        batches += [[group[index] for index in batch] for batch in group_batches]
    prefix = CurrentPrefix(model, device)

    def score(batch: list[int]) -> list[NDArray[np.float64]]:
        common = common_of[batch[0]]
        cache = prefix.cache(rows[batch[0]].prompt[:common])
        return _batch(model, [rows[number] for number in batch], common, cache, device)

    with torch.no_grad():  # not inference_mode: weights that FSDP gathers there cannot be trained on after it
        return run_rows(run, batches, score)


def _batches(
    rows: Sequence[QuestionRow], common: int, vocabulary: int, batch_tokens: int, prefix_tokens: int
) -> list[list[int]]:
    """Indices of rows, longest first, within the limits of tokens, prefix keys and logits; a longer row runs alone."""
    lengths = [len(row.prompt) - common + len(row.tokens) for row in rows]
    batches: list[list[int]] = []
    logits = 0
    for index in sorted(range(len(rows)), key=lambda index: -lengths[index]):
        logits += 4 * vocabulary * rows[index].scored_tokens
        if batches:
            count, width = len(batches[-1]) + 1, lengths[batches[-1][0]]
            prefix_fits = count * (width + common) <= prefix_tokens
            if count * width <= batch_tokens and prefix_fits and logits <= LOGITS_BYTES:
                batches[-1].append(index)
                continue
        batches.append([index])
        logits = 4 * vocabulary * rows[index].scored_tokens
    return batches


def _batch(
    model: Any,
    rows: Sequence[QuestionRow],
    common: int,
    prefix: Cache | None,
    device: torch.device,
) -> list[NDArray[np.float64]]:
    own_tokens = [(*row.prompt[common:], *row.tokens) for row in rows]
    width = max(map(len, own_tokens))
    ids = torch.tensor([[*own, *([0] * (width - len(own)))] for own in own_tokens], device=device)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if prefix is None and all(row.is_linear for row in rows):
        # Padding is on the right, where no real token looks; a mask of ones keeps the fused causal kernel.
        inputs["attention_mask"] = torch.ones_like(ids)
    else:
        visible, positions = zip(*(_visible(row, common, width) for row in rows), strict=True)
        inputs["attention_mask"] = _additive(torch.from_numpy(np.stack(visible)).to(device), common, model.dtype)
        inputs["position_ids"] = torch.from_numpy(np.stack(positions)).to(device)
    if prefix is not None:
        inputs |= {"past_key_values": prefix, "use_cache": True}
    ends = [len(row.prompt) - common for row in rows]
    scored = [
        (line, ends[line] + offset, token)
        for line, row in enumerate(rows)
        for option, offsets in zip(row.options, row.offsets, strict=True)
        for offset, token in zip(offsets, option, strict=True)
    ]
    lines, columns, tokens = (torch.tensor(column, device=device) for column in zip(*scored, strict=True))
    with _head_only_on(model, lines, columns):
        logits = model(**inputs).logits[0]
    values = read(logits, tokens).cpu().numpy()
    return np.split(values, np.cumsum([row.scored_tokens for row in rows])[:-1])


def _visible(row: QuestionRow, common: int, width: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the row's own tokens each of them sees, and the position of each; padding sees itself."""
    start = len(row.prompt) - common
    visible = np.tri(width, dtype=np.bool_)
    visible[start:] = np.eye(width, dtype=np.bool_)[start:]
    visible[start:, :start] = True
    positions = np.arange(common, common + width)
    for index, parent in enumerate(row.parents):
        current = start + index
        if parent >= 0:
            visible[current] |= visible[start + parent]
        positions[current] = positions[start + parent] + 1
    positions[start + len(row.tokens) :] = 0
    return visible, positions


def _additive(visible: torch.Tensor, common: int, dtype: torch.dtype) -> torch.Tensor:
    """The mask (rows, 1, tokens, prefix + tokens) as attention adds it to its scores; all tokens see the prefix."""
    mask = torch.zeros((*visible.shape[:2], common + visible.shape[2]), dtype=dtype, device=visible.device)
    mask[:, :, common:].masked_fill_(~visible, torch.finfo(dtype).min)
    return mask[:, None]


@contextlib.contextmanager
def _head_only_on(model: Any, lines: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
    """Run the head on the scored positions only, as one row: the logits are (1, scored, vocabulary)."""

    def select(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][lines, columns][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def read(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each row's token, from logits (rows, vocabulary); a block at a time, in float32."""
    blocks = []
    for begin in range(0, len(tokens), SOFTMAX_ROWS):
        rows = logits[begin : begin + SOFTMAX_ROWS].float()
        blocks.append(rows.gather(1, tokens[begin : begin + SOFTMAX_ROWS, None])[:, 0] - rows.logsumexp(1))
    return torch.cat(blocks).double()
