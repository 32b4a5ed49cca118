"""Answers in a form: only tokens that keep the answer within a JSON schema or a regular expression can be chosen.

An answer may end only where its form is complete, and it ends at once where nothing can follow. It can still stop at
its limit of tokens before that.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lora_med.errors import DependencyMissingError
from lora_med.serving.requests import BadRequest, Constraint

BLANKS = r"[ \n\t]{0,20}"  # a model that writes blanks for ever would never complete its answer


class AnswerForms:
    """The forms that one tokenizer's answers can have; made once, as reading the vocabulary takes up to a second."""

    def __init__(self, tokenizer: Any, words: int, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._words = words
        self._ends = list(ends)
        self._lock = threading.Lock()
        self._vocabulary: Any = None

    def open(self, constraint: Constraint) -> AnswerForm:
        """A form for one answer.

        Raises:
            DependencyMissingError: llguidance is not installed.
            BadRequest: the schema or the expression is wrong, or it has something that is not supported.
        """
        guidance = _guidance()
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = importlib.import_module("llguidance.hf").from_tokenizer(
                    self._tokenizer, n_vocab=self._words, eos_token=self._ends
                )
        try:
            if constraint.kind == "json_schema":
                options = {"whitespace_pattern": BLANKS}
                grammar = guidance.LLMatcher.grammar_from_json_schema(constraint.text, overrides=options)
            else:
                grammar = guidance.LLMatcher.grammar_from_regex(constraint.text)
        except ValueError as error:
            raise BadRequest(f"the {constraint.kind} cannot be read", where=constraint.kind) from error
        matcher = guidance.LLMatcher(self._vocabulary, grammar, log_level=0)
        if matcher.is_error():
            reason = matcher.get_error().strip().partition("\n")[0]
            raise BadRequest(f"the {constraint.kind} cannot be used: {reason}", where=constraint.kind)
        return AnswerForm(matcher, self._words, constraint.kind)


class AnswerForm:
    """The form of one answer, of which the tokens so far are known. Used by one thread at a time."""

    def __init__(self, matcher: Any, words: int, kind: str) -> None:
        self._matcher = matcher
        self._words = words
        self._kind = kind

    def allow(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits (words,), minus infinity for each token that the form does not allow next.

        Raises:
            BadRequest: no token is allowed: the form leads to a place from which no answer can go on.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(mask, count=self._words, bitorder="little").astype(bool)
        if self._matcher.is_error() or not allowed.any():
            raise BadRequest(f"no token can continue the answer within the {self._kind}", where=self._kind)
        here = torch.from_numpy(allowed).to(logits.device)
        if len(here) < len(logits):  # rows that pad the head beyond the vocabulary
            here = torch.nn.functional.pad(here, (0, len(logits) - len(here)))
        return logits.masked_fill(~here[: len(logits)], -torch.inf)

    def add(self, token: int) -> None:
        """Take the next token of the answer."""
        self._matcher.consume_token(token)

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end can follow."""
        return self._matcher.is_stopped()


def _guidance() -> Any:
    if importlib.util.find_spec("llguidance") is None:
        raise DependencyMissingError(
            "answers in a form need llguidance, which is not installed", fix='pip install "lora-med[serve]"'
        )
    return importlib.import_module("llguidance")
