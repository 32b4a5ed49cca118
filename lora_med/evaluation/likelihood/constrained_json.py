"""Answers held to the JSON list of entities that training wrote: each next token is one that keeps the list sound."""

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


def freely(rows: Sequence[int]) -> Sequence[Any]:
    """No constraint at all."""
    return ()


def entity_list(model: Any, tokenizer: Any, types: Sequence[str]) -> Processors:
    """What `greedy` takes as `processors`: every answer is a JSON list of these types, mentions free, and then ends.

    An answer can still break off at its limit of tokens.

    Raises:
        DependencyMissingError: llguidance is not installed.
        SettingsError: no type is given.
    """
    if not types:
        raise SettingsError("no type of entity to hold the answers to", fix="name at least one")
    if importlib.util.find_spec("llguidance") is None:
        raise DependencyMissingError(
            "answers held to JSON need llguidance, which is not installed", fix='pip install "lora-med[eval]"'
        )
    guidance: Any = importlib.import_module("llguidance")
    vocabulary: Any = importlib.import_module("llguidance.hf").from_tokenizer(
        tokenizer, n_vocab=model.config.get_text_config().vocab_size, eos_token=stop_ids(model, tokenizer)
    )
    quoted = (json.dumps(json.dumps(kind, ensure_ascii=False), ensure_ascii=False) for kind in types)
    grammar = guidance.LLMatcher.grammar_from_lark(f"{LIST}kind: {' | '.join(quoted)}\n")

    def processors(rows: Sequence[int]) -> Sequence[Any]:
        return [_Held([guidance.LLMatcher(vocabulary, grammar) for _ in rows])]

    return processors


class _Held(LogitsProcessor):
    """Forbids, row by row, what a matcher of the grammar does not allow next; after the list, all but the ends."""

    def __init__(self, matchers: Sequence[Any]) -> None:
        self.matchers = matchers
        self.begun = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores with what is not allowed at minus infinity."""
        if self.begun:
            for matcher, token in zip(self.matchers, input_ids[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():
                    matcher.consume_token(token)
        self.begun = True
        masks = np.stack([np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8) for matcher in self.matchers])
        allowed = np.unpackbits(masks, axis=1, count=scores.shape[1], bitorder="little").astype(bool)
        return scores.masked_fill(torch.from_numpy(~allowed).to(scores.device), -torch.inf)
