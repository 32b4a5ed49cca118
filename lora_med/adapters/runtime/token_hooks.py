"""Trained tokens in an adapter pool: each row of a batch uses its own adapter's rows of the embedding and the head.

Under an adapter without the token, and under the bare base, a new token is read as its starting row, the mean of its
pieces. It is never predicted where the embedding had no row for it. Of a free row the base's own score stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lora_med.adapters.runtime.layer_update import Adapter
from lora_med.adapters.runtime.selection import One, Rows
from lora_med.models.tokens.vocabulary import BaseTokens


def embedded(
    module: Any, tokens: BaseTokens | None, choice: One | Rows | None, ids: torch.Tensor, output: torch.Tensor
) -> torch.Tensor:
    """The embedding's `output` (rows, tokens, width), with the rows of trained tokens in the place of its own."""
    owners = choice.owners(len(ids)) if choice is not None else [None] * len(ids)
    own = {adapter: adapter.inputs for adapter in owners if adapter is not None and adapter.inputs}
    starts = _starts(tokens)
    if not own and not starts:
        return output
    changed = output
    for adapter, rows in _by_owner(owners).items():
        for number, row in {**starts, **(own.get(adapter, {}) if adapter is not None else {})}.items():
            here = ids[rows] == number
            if bool(here.any()):
                changed = output.clone() if changed is output else changed
                places = here.nonzero()
                changed[torch.tensor(rows, device=ids.device)[places[:, 0]], places[:, 1]] = _scaled(
                    module, row, output
                )
    return changed


def scored(
    module: Any, tokens: BaseTokens | None, choice: One | Rows | None, hidden: torch.Tensor, output: torch.Tensor
) -> torch.Tensor:
    """The head's `output` (rows, tokens, words), with the scores of trained tokens by each row's own adapter."""
    added = tokens.added_rows if tokens is not None else []
    owners = choice.owners(len(output)) if choice is not None else [None] * len(output)
    if not added and not any(adapter is not None and adapter.outputs for adapter in owners):
        return output
    changed = output.clone()
    for adapter, rows in _by_owner(owners).items():
        every = len(rows) == len(output)
        part = changed if every else changed[rows]
        own: Mapping[int, torch.Tensor] = adapter.outputs if adapter is not None else {}
        part[..., [number for number in added if number not in own]] = torch.finfo(output.dtype).min
        if own:
            inner = hidden if every else hidden[rows]
            weight = torch.stack(list(own.values())).to(module.weight.dtype)  # as the merged head is stored
            scores = torch.nn.functional.linear(inner.to(weight.dtype), weight)
            bias = getattr(module, "bias", None)
            part[..., list(own)] = (scores if bias is None else scores + bias[list(own)]).to(output.dtype)
        if not every:
            changed[rows] = part
    return changed


def _starts(tokens: BaseTokens | None) -> dict[int, torch.Tensor]:
    """The starting rows of the tokens that are new to the base."""
    if tokens is None:
        return {}
    return {
        number: row
        for (token, number), row in zip(tokens.ids.items(), tokens.inputs, strict=True)
        if token in tokens.new
    }


def _by_owner(owners: Sequence[Adapter | None]) -> dict[Adapter | None, list[int]]:
    rows: dict[Adapter | None, list[int]] = {}
    for number, adapter in enumerate(owners):
        rows.setdefault(adapter, []).append(number)
    return rows


def _scaled(module: Any, row: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """A row as the embedding returns it: Gemma 3 scales in its forward pass."""
    scale = getattr(module, "embed_scale", None)
    row = row.to(module.weight.dtype)
    return (row if scale is None else row * scale.to(row.dtype)).to(output.dtype)
