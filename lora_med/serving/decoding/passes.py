"""Forward passes for running requests, each row under its own adapter: a part of a prompt, or a token for each answer.

A pass that fails is run again for each of its requests alone, so that only those end that cannot be computed. That is
slow: `split_passes` counts them.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence as Many
from typing import Any

import torch

from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.selection import choose
from lora_med.models.attention.row_attention import RowMemory
from lora_med.serving.decoding.answer_steps import next_token, not_finite, prompt_scores, score_prompt
from lora_med.serving.decoding.capacity import Capacity
from lora_med.serving.decoding.identity import prefix_digest
from lora_med.serving.decoding.model_steps import Memory, ModelSteps
from lora_med.serving.decoding.prefix_blocks import BLOCK, Block, PrefixCache
from lora_med.serving.decoding.running_request import Sequence
from lora_med.serving.requests import Done, EngineError

logger = logging.getLogger(__name__)
End = Done | EngineError | None  # how a request ends, if it does


class Passes:
    """The passes over `steps`; used by the engine's thread alone."""

    def __init__(
        self, steps: ModelSteps, pool: AdapterPool, capacity: Capacity, prefixes: PrefixCache, base: tuple[str, str]
    ) -> None:
        """`base` is the base's fingerprint, and its identity with quantization and dtype."""
        self._steps, self._pool = steps, pool
        self._capacity, self._prefixes = capacity, prefixes
        self._fingerprint, self._base = base
        self._choice: tuple[tuple[str | None, ...], Any] = ((), None)
        self.split_passes = 0

    def compute_prompt(self, sequence: Sequence) -> tuple[int, End]:
        """Compute the next part of a prompt; returns its number of tokens, and how the request ends, if it does.

        After the last part the answer's first token is chosen.
        """
        tokens, echo = sequence.ask.tokens, sequence.ask.echo_logprobs
        memory = _memory(sequence)
        if not sequence.computed and isinstance(memory, RowMemory) and not echo:
            for block in self._prefixes.find(tokens, lambda prefix: self._digest(sequence, prefix)):
                memory.copy_in(block.states)
            sequence.computed = sequence.cached = memory.length
        start = sequence.computed
        end = min(len(tokens), start - start % BLOCK + BLOCK) if self._steps.splits_prompts else len(tokens)
        try:
            with choose(self._pool.key, self._choice_of([sequence])):
                logits = self._steps.forward([memory], [tokens[start:end]], every=echo)[0]
            sequence.computed = end
            return end - start, self._after_part(sequence, logits, start)
        except Exception as error:  # whatever a model's code or the device raises, only this request ends
            return end - start, _failed(sequence, error)

    def _after_part(self, sequence: Sequence, logits: torch.Tensor, start: int) -> End:
        """What follows from the logits (tokens, words) of a part of a prompt that begins at `start`."""
        echo, tokens = sequence.ask.echo_logprobs, sequence.ask.tokens
        if not torch.isfinite(logits).all():
            return not_finite(sequence)
        if echo:
            score_prompt(sequence, logits, start)
        if sequence.computed < len(tokens):
            return None
        self._cache_prefix(sequence)
        if echo:
            sequence.handle.deliver(prompt_scores(sequence))
        return next_token(sequence, logits[-1], int(logits[-1].argmax()), self._fingerprint)

    def write(self, sequences: Many[Sequence]) -> list[tuple[Sequence, End]]:
        """One more token for each answer; returns how each request ends, if it does."""
        ends: list[tuple[Sequence, End]] = []
        for group in self._groups(sequences):
            ends += self._write(group)
        return ends

    def _groups(self, sequences: Many[Sequence]) -> list[list[Sequence]]:
        """The requests that share a pass, in the order of their adapters, which is the pool's.

        Adapters of routed experts share a pass with no other adapter.
        """
        if not self._steps.together:
            return [[sequence] for sequence in sequences]
        groups: dict[str | None, list[Sequence]] = {}
        for sequence in sorted(sequences, key=lambda one: one.version.key or ""):
            groups.setdefault(sequence.version.key if sequence.alone else None, []).append(sequence)
        return list(groups.values())

    def _write(self, group: list[Sequence]) -> list[tuple[Sequence, End]]:
        try:
            with choose(self._pool.key, self._choice_of(group)):
                logits = self._steps.forward(
                    [_memory(sequence) for sequence in group], [[sequence.last] for sequence in group]
                )[:, -1]
        except Exception as error:  # as above
            if len(group) == 1:
                return [(group[0], _failed(group[0], error))]
            self.split_passes += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            logger.warning(
                "a pass of %d requests failed, so each is computed alone: %s at %s:%s",
                len(group),
                type(error).__name__,
                place.filename,
                place.lineno,
            )
            return [end for sequence in group for end in self._write([sequence])]
        finite = torch.isfinite(logits).all(dim=1).tolist()
        likeliest = logits.argmax(dim=1).tolist()
        return [
            (sequence, self._next(sequence, row, best) if fine else not_finite(sequence))
            for sequence, row, best, fine in zip(group, logits, likeliest, finite, strict=True)
        ]

    def _next(self, sequence: Sequence, row: torch.Tensor, best: int) -> End:
        try:
            return next_token(sequence, row, best, self._fingerprint)
        except Exception as error:  # of a tokenizer or a grammar: the other requests of the pass go on
            return _failed(sequence, error)

    def _choice_of(self, group: Many[Sequence]) -> Any:
        """The pool's choice for these rows. Each request keeps its adapter in memory, so that this never waits."""
        keys = tuple(sequence.version.key for sequence in group)
        if keys != self._choice[0]:
            slots, choice = self._pool.hold(keys)
            self._pool.release(slots)
            if len(group) == 1:
                return choice
            self._choice = (keys, choice)
        return self._choice[1]

    def forget_choice(self) -> None:
        """Let go of adapters that no request needs any more."""
        self._choice = ((), None)

    def _digest(self, sequence: Sequence, prefix: Many[int]) -> str:
        return prefix_digest(
            key=sequence.ask.key,
            base=self._base,
            adapter=sequence.version.identity,
            template=sequence.version.template_digest,
            tokens=prefix,
        )

    def _cache_prefix(self, sequence: Sequence) -> None:
        """Cache the whole blocks of a prompt that ended well, as far as there is memory for them."""
        memory, tokens = _memory(sequence), sequence.ask.tokens
        if not isinstance(memory, RowMemory):
            return
        size = self._steps.memory_bytes(BLOCK)
        for end in range(sequence.cached + BLOCK, len(tokens) + 1, BLOCK):
            if not self._capacity.fits_prefix(size):
                return
            states = memory.copy_out(end - BLOCK, end)
            self._prefixes.put(self._digest(sequence, tokens[:end]), Block(tuple(tokens[:end]), states, size))


def _memory(sequence: Sequence) -> Memory:
    assert sequence.memory is not None
    return sequence.memory


def _failed(sequence: Sequence, error: Exception) -> EngineError:
    """The error of a request whose pass failed; the text of a library's error may hold anything, so its kind alone."""
    logger.warning("request %s failed in a forward pass: %s", sequence.ask.id, type(error).__name__)
    return EngineError(f"request {sequence.ask.id} could not be computed ({type(error).__name__})")
