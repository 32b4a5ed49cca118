"""Questions scored with nothing computed twice: the options branch off one prompt, and prompts branch off a trunk.

A question is one row: its prompt, then the tokens of its options as a tree, each token seeing the prompt and its own
option's tokens before it (a 4-D mask), at the position where it would stand alone (position ids). What many prompts
begin with, such as the solved examples of a k-shot prompt, is run once and its keys and values are lent to all rows.
The head runs on the wanted positions only. In float32 the scores are those of one row for each option up to rounding.
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
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

LOGITS_BYTES = 1 << 28
SOFTMAX_ROWS = 256
LEAST_TRUNK = 16  # a shorter beginning costs more in masks than it saves
TRUNK_SHARE = 8  # a batch may hold so many times its own tokens in lent keys and values
MASKED = ("sdpa", "eager", "lora_med_sdpa")
LENGTH_BOUND_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class Branched:
    """A question as one row: `prompt`, then `tokens`, token i following token `parents[i]` (-1: the prompt's end).

    Option k's tokens are `options[k]`; the prediction of its i-th is made at `places[k][i]`, counted like `parents`.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, ...], ...]

    @property
    def chain(self) -> bool:
        """Whether no option leaves the others, so that the row is an ordinary one."""
        return all(parent == place - 1 for place, parent in enumerate(self.parents))

    @property
    def wanted(self) -> int:
        """How many tokens are scored."""
        return sum(map(len, self.options))


def branch(prompt: Sequence[int], options: Sequence[Sequence[int]], context: int) -> Branched:
    """The row of a question; options that begin alike share those tokens.

    A prompt that leaves no room in `context` for the longest option loses tokens after its first (BOS).
    """
    tokens: list[int] = []
    parents: list[int] = []
    known: dict[tuple[int, int], int] = {}
    places: list[tuple[int, ...]] = []
    for option in options:
        here, path = -1, [-1]
        for token in option[:-1]:
            if (here, token) not in known:
                known[here, token] = len(tokens)
                tokens.append(token)
                parents.append(here)
            here = known[here, token]
            path.append(here)
        places.append(tuple(path))
    kept = cut_left(prompt, context - max(map(len, options)) + 1)
    return Branched(kept, tuple(tokens), tuple(parents), tuple(map(tuple, options)), tuple(places))


def cut_left(prompt: Sequence[int], length: int) -> tuple[int, ...]:
    """The prompt in at most `length` tokens: its first token and then its end."""
    if len(prompt) <= length:
        return tuple(prompt)
    return (prompt[0], *prompt[len(prompt) - max(0, length - 1) :]) if length > 1 else tuple(prompt[-1:])


def can_branch(model: Any, length: int) -> bool:
    """Whether the model takes a mask of any shape and lent keys for rows of up to `length` tokens.

    Not so for recurrent layers, windows shorter than the row, positions that are told by distance alone (ALiBi) or that
    depend on the row's length, and attention kernels that know no mask.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    rope = getattr(config, "rope_parameters", None) or {}
    known = inspect.signature(model.forward).parameters
    return (
        {"position_ids", "past_key_values"} <= set(known)
        and kinds <= {"full_attention", "sliding_attention"}
        and (window is None or length <= window)
        and config._attn_implementation in MASKED
        and rope.get("rope_type") not in LENGTH_BOUND_ROPE
        and not getattr(config, "alibi", False)
        and not getattr(config, "num_kv_shared_layers", 0)
        and not getattr(model, "_is_stateful", False)
        and model.get_output_embeddings() is not None
    )


def trunks(prompts: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Groups of prompts as `(tokens in common, their numbers)`; a prompt keeps at least one token of its own.

    Prompts are compared in sorted order, and one joins a group if that saves at least as many tokens as it costs. All
    that share too little for a trunk make the group with 0 in common.
    """
    found: list[tuple[int, list[int]]] = []
    alone: list[int] = []
    common, group = 0, list[int]()
    for number in sorted(range(len(prompts)), key=lambda one: tuple(prompts[one])):
        shared = _common(prompts[group[-1]], prompts[number]) if group else 0
        together = min(common, shared) if len(group) > 1 else shared
        if group and len(group) * together >= (len(group) - 1) * common:
            common = together
            group.append(number)
            continue
        _settle(found, alone, common, group)
        common, group = 0, [number]
    _settle(found, alone, common, group)
    return [*found, *([(0, sorted(alone))] if alone else [])]


def _settle(found: list[tuple[int, list[int]]], alone: list[int], common: int, group: list[int]) -> None:
    if common >= LEAST_TRUNK and len(group) > 1:
        found.append((common, sorted(group)))
    else:
        alone += group


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    most = min(len(one), len(other)) - 1
    return next((place for place in range(most) if one[place] != other[place]), max(most, 0))


def score_branched(model: Any, rows: Sequence[Branched], *, batch_tokens: int) -> list[NDArray[np.float64]]:
    """The log-probability of every token of every option, one array a row, the options one after another."""
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(rows)
    device = next(model.parameters()).device
    with torch.no_grad():  # not inference_mode: weights that FSDP gathers there cannot be trained on after it
        for common, group in trunks([row.prompt for row in rows]):
            trunk = _trunk(model, rows[group[0]].prompt[:common], device) if common else None
            for batch in _batches([rows[number] for number in group], common, model.config.vocab_size, batch_tokens):
                chosen = [group[place] for place in batch]
                values = _batch(model, [rows[number] for number in chosen], common, trunk, device)
                for number, one in zip(chosen, values, strict=True):
                    found[number] = one
    return found


class _Lent(DynamicLayer):
    """The trunk's keys and values of one layer, lent to every row of a batch and never grown."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = self._lent = (layer.keys, layer.values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The trunk's and a batch's own keys and values, one after the other."""
        both = zip(self._lent, (key_states, value_states), strict=True)
        keys, values = (torch.cat([lent.expand(len(own), -1, -1, -1), own], dim=-2) for lent, own in both)
        return keys, values


def _trunk(model: Any, ids: Sequence[int], device: torch.device) -> Cache:
    """Keys and values of each layer for the tokens that rows begin with."""
    cache = DynamicCache()
    model(input_ids=torch.tensor([list(ids)], device=device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Cache(layers=[_Lent(layer) for layer in cache.layers])


def _batches(rows: Sequence[Branched], common: int, vocabulary: int, batch_tokens: int) -> list[list[int]]:
    """Places of rows, longest first, within the limits of tokens, lent keys and logits; one too long goes alone."""
    lengths = [len(row.prompt) - common + len(row.tokens) for row in rows]
    found: list[list[int]] = []
    logits = 0
    for place in sorted(range(len(rows)), key=lambda place: -lengths[place]):
        logits += 4 * vocabulary * rows[place].wanted
        if found:
            count, width = len(found[-1]) + 1, lengths[found[-1][0]]
            lent = count * (width + common) <= TRUNK_SHARE * batch_tokens
            if count * width <= batch_tokens and lent and logits <= LOGITS_BYTES:
                found[-1].append(place)
                continue
        found.append([place])
        logits = 4 * vocabulary * rows[place].wanted
    return found


def _batch(
    model: Any,
    rows: Sequence[Branched],
    common: int,
    trunk: Cache | None,
    device: torch.device,
) -> list[NDArray[np.float64]]:
    parts = [(*row.prompt[common:], *row.tokens) for row in rows]
    width = max(map(len, parts))
    ids = torch.tensor([[*part, *([0] * (width - len(part)))] for part in parts], device=device)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if trunk is None and all(row.chain for row in rows):
        # Padding stands on the right, where no real token looks; a mask of ones keeps the fused causal kernel.
        inputs["attention_mask"] = torch.ones_like(ids)
    else:
        seen, positions = zip(*(_seen(row, common, width) for row in rows), strict=True)
        inputs["attention_mask"] = _additive(torch.from_numpy(np.stack(seen)).to(device), common, model.dtype)
        inputs["position_ids"] = torch.from_numpy(np.stack(positions)).to(device)
    if trunk is not None:
        inputs |= {"past_key_values": trunk, "use_cache": True}
    ends = [len(row.prompt) - common for row in rows]
    flat = [
        (line, ends[line] + place, token)
        for line, row in enumerate(rows)
        for option, places in zip(row.options, row.places, strict=True)
        for place, token in zip(places, option, strict=True)
    ]
    lines, columns, tokens = (torch.tensor(one, device=device) for one in zip(*flat, strict=True))
    with _head_on(model, lines, columns):
        logits = model(**inputs).logits[0]
    values = read(logits, tokens).cpu().numpy()
    return np.split(values, np.cumsum([row.wanted for row in rows])[:-1])


def _seen(row: Branched, common: int, width: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the row's own tokens each of them sees, and the position of each; padding sees itself."""
    start = len(row.prompt) - common
    seen = np.tri(width, dtype=np.bool_)
    seen[start:] = np.eye(width, dtype=np.bool_)[start:]
    seen[start:, :start] = True
    positions = np.arange(common, common + width)
    for place, parent in enumerate(row.parents):
        here = start + place
        if parent >= 0:
            seen[here] |= seen[start + parent]
        positions[here] = positions[start + parent] + 1
    positions[start + len(row.tokens) :] = 0
    return seen, positions


def _additive(seen: torch.Tensor, common: int, dtype: torch.dtype) -> torch.Tensor:
    """The mask (rows, 1, tokens, trunk + tokens) as attention adds it to its scores; the trunk is seen by all."""
    mask = torch.zeros((*seen.shape[:2], common + seen.shape[2]), dtype=dtype, device=seen.device)
    mask[:, :, common:].masked_fill_(~seen, torch.finfo(dtype).min)
    return mask[:, None]


@contextlib.contextmanager
def _head_on(model: Any, lines: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
    """Let the head see the wanted positions only, as one row: the logits are (1, wanted, vocabulary)."""

    def keep(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][lines, columns][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield
    finally:
        hook.remove()


def read(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each row's token, from logits (rows, vocabulary); a block at a time, in float32."""
    parts = []
    for begin in range(0, len(tokens), SOFTMAX_ROWS):
        rows = logits[begin : begin + SOFTMAX_ROWS].float()
        parts.append(rows.gather(1, tokens[begin : begin + SOFTMAX_ROWS, None])[:, 0] - rows.logsumexp(1))
    return torch.cat(parts).double()
