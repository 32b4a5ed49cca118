"""Answers restricted to the JSON list of entities that training wrote: every token keeps the list valid."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from lora_med.errors import DependencyMissingError, SettingsError
from lora_med.models.generation import stop_ids

# As json.dumps writes it: one blank behind commas and colons, and before the list where the template puts one. A
# mention begins with no blank and holds no control character; the types are added below.
LIST = r"""
start: " "? "[" (item (", " item)*)? "]"
item: "{\"type\": " kind ", \"text\": " MENTION "}"
MENTION: /"(\\["\\\/bfnrt]|[^"\\\x00-\x20])(\\["\\\/bfnrt]|[^"\\\x00-\x1f])*"/
"""
Processors = Callable[[Sequence[int]], Sequence[Any]]  # from the numbers of a batch's rows to its LogitsProcessors


def unconstrained(rows: Sequence[int]) -> Sequence[Any]:
    """No constraint."""
    return ()


def entity_list(model: Any, tokenizer: Any, types: Sequence[str]) -> Processors:
    """What `greedy` takes as `processors`: every answer is a JSON list of these types with any mentions, then ends.

    An answer can still stop at its limit of tokens.

    Raises:
        DependencyMissingError: llguidance is not installed.
        SettingsError: `types` is empty.
    """
    if not types:
        raise SettingsError("there is no entity type to restrict the answers to", fix="name at least one")
    if importlib.util.find_spec("llguidance") is None:
        raise DependencyMissingError(
            "answers restricted to JSON need llguidance, which is not installed", fix='pip install "lora-med[eval]"'
        )
    guidance: Any = importlib.import_module("llguidance")
    vocabulary: Any = importlib.import_module("llguidance.hf").from_tokenizer(
        tokenizer, n_vocab=model.config.get_text_config().vocab_size, eos_token=stop_ids(model, tokenizer)
    )
    quoted = (json.dumps(json.dumps(kind, ensure_ascii=False), ensure_ascii=False) for kind in types)
    grammar = guidance.LLMatcher.grammar_from_lark(f"{LIST}kind: {' | '.join(quoted)}\n")

    def processors(rows: Sequence[int]) -> Sequence[Any]:
        return [_AllowedOnly([guidance.LLMatcher(vocabulary, grammar) for _ in rows])]

    return processors


class _AllowedOnly(LogitsProcessor):
    """Forbids, row by row, each token that the grammar does not allow next; after the list, all but the end tokens."""

    def __init__(self, matchers: Sequence[Any]) -> None:
        self.matchers = matchers
        self.has_started = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores, minus infinity for each token that is not allowed."""
        if self.has_started:
            for matcher, token in zip(self.matchers, input_ids[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():
                    matcher.consume_token(token)
        self.has_started = True
        masks = np.stack([np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8) for matcher in self.matchers])
        allowed = np.unpackbits(masks, axis=1, count=scores.shape[1], bitorder="little").astype(bool)
        return scores.masked_fill(torch.from_numpy(~allowed).to(scores.device), -torch.inf)
