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
# By llguidance's own limits the first token of (a{1000}){1000} took 1.2 s of CPU, by these 0.2 s. A schema with 5,000
# fields needs less.
FIRST_FUEL, STEP_FUEL, MOST_STATES = 300_000, 50_000, 50_000
REASON_LETTERS = 200  # of llguidance's words, which quote the expression


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
        backslashes = len(constraint.text) - len(constraint.text.rstrip("\\"))
        if constraint.kind == "regex" and backslashes % 2:  # llguidance takes it for nothing
            raise BadRequest("the regex ends with a backslash that escapes nothing", where=constraint.kind)
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
        limits = guidance.LLParserLimits(
            initial_lexer_fuel=FIRST_FUEL, step_lexer_fuel=STEP_FUEL, max_lexer_states=MOST_STATES
        )
        matcher = guidance.LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        form = AnswerForm(matcher, self._words, constraint.kind)
        form.allowed()  # the first one takes longest: it shall not be the engine's thread that computes it
        return form


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
        here = torch.from_numpy(self.allowed()).to(logits.device)
        if len(here) < len(logits):  # rows that pad the head beyond the vocabulary
            here = torch.nn.functional.pad(here, (0, len(logits) - len(here)))
        return logits.masked_fill(~here[: len(logits)], -torch.inf)

    def allowed(self) -> np.ndarray:
        """Which tokens may come next, true or false for each (words,).

        Raises:
            BadRequest: as `allow`, or the form is wrong or too complex.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(mask, count=self._words, bitorder="little").astype(bool)
        if not allowed.any():
            raise BadRequest(f"no token can continue the answer within the {self._kind}", where=self._kind)
        return allowed

    def add(self, token: int) -> None:
        """Take the next token of the answer.

        Raises:
            BadRequest: the form is too complex to go on.
        """
        self._matcher.consume_token(token)
        self._check()

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end can follow."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        """Refuse a form that went wrong: it also counts as stopped, as a complete one does."""
        if self._matcher.is_error():
            reason = self._matcher.get_error().strip().partition("\n")[0][:REASON_LETTERS]
            raise BadRequest(f"the {self._kind} cannot be used: {reason}", where=self._kind)


def _guidance() -> Any:
    if importlib.util.find_spec("llguidance") is None:
        raise DependencyMissingError(
            "answers in a form need llguidance, which is not installed", fix='pip install "lora-med[serve]"'
        )
    return importlib.import_module("llguidance")
