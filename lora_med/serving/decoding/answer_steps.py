"""What a forward pass means for one request: its prompt's scores, its next token, and its end."""

from __future__ import annotations

import torch

from lora_med.serving.decoding.choose_token import choose, scored, scored_prompt
from lora_med.serving.decoding.running_request import Sequence
from lora_med.serving.requests import Done, EngineError, NotFinite, Piece, PromptScores


def score_prompt(sequence: Sequence, logits: torch.Tensor, start: int) -> None:
    """Score the prompt's tokens after `start`, from the logits (tokens, words) of a part that begins there."""
    targets = sequence.ask.tokens[start + 1 : start + 1 + len(logits)]
    logprobs, alternatives = scored_prompt(
        logits[: len(targets)], targets, sequence.ask.sampling.logprobs or 0, sequence.version.text_of
    )
    sequence.logprobs += logprobs
    sequence.alternatives += alternatives


def prompt_scores(sequence: Sequence) -> PromptScores:
    """The event with the scores of all of the prompt."""
    tokens = sequence.ask.tokens
    texts = tuple(map(sequence.version.text_of, tokens))
    return PromptScores(tokens, texts, tuple(sequence.logprobs), tuple(sequence.alternatives))


def next_token(sequence: Sequence, logits: torch.Tensor, likeliest: int, base: str) -> Done | EngineError | None:
    """Choose the next token from finite logits (words,) and deliver it; returns how the request ends, if it does.

    Args:
        likeliest: the token with the largest logit.
        base: the base's fingerprint.
    """
    sampling, text = sequence.ask.sampling, sequence.text
    if sampling.max_tokens == 0:
        return done(sequence, "length", base)
    try:
        token = _chosen(sequence, logits, likeliest)
    except EngineError as error:
        return error
    if token in sequence.version.ends:
        return done(sequence, "stop", base)
    logprob, alternatives = None, ()
    if sampling.logprobs is not None:
        logprob, alternatives = scored(logits, token, sampling.logprobs, sequence.version.text_of)
    sequence.written += 1
    sequence.last = token
    sequence.handle.deliver(Piece(text.add(token), token, logprob, alternatives))
    if text.is_stopped:
        return done(sequence, "stop", base)
    if sequence.form is not None and sequence.form.is_complete:
        return done(sequence, "stop", base)
    return done(sequence, "length", base) if sequence.written >= sampling.max_tokens else None


def _chosen(sequence: Sequence, logits: torch.Tensor, likeliest: int) -> int:
    """The next token, which the answer's form has taken.

    Raises:
        BadRequest: none is allowed, or the form is too complex.
    """
    form, sampling = sequence.form, sequence.ask.sampling
    if form is None:
        return likeliest if sequence.generator is None else choose(logits, sampling, sequence.generator)
    token = choose(form.allow(logits), sampling, sequence.generator)
    if token not in sequence.version.ends:
        form.add(token)
    return token


def done(sequence: Sequence, reason: str, base: str) -> Done:
    """The last event of a request, with the text that was held back."""
    text = "" if sequence.text.is_stopped else sequence.text.end()
    return Done(
        reason="stop" if reason == "stop" or sequence.text.is_stopped else "length",
        prompt_tokens=len(sequence.ask.tokens),
        completion_tokens=sequence.written,
        adapter_sha256=sequence.handle.adapter_sha256,
        base_fingerprint=base,
        text=text,
    )


def not_finite(sequence: Sequence) -> NotFinite:
    """The error of a request whose logits hold NaN or infinity."""
    loaded = sequence.version.loaded
    who = "the base" if loaded is None else f"adapter {loaded.name!r} (SHA-256 {loaded.sha256[:16]})"
    return NotFinite(
        f"{who} gives NaN or infinity for request {sequence.ask.id}",
        adapter=None if loaded is None else loaded.name,
        fix="load the base in another dtype" if loaded is None else "train the adapter again; it is out of service",
    )
