"""The next token from a row of logits: the likeliest, or one drawn with the request's own seed; and log-probabilities.

A draw uses one uniform number for each token. It selects in the order of the token ids, so numbers that differ in
their last digits, as those of another batch do, give another token only at a border.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import torch

from lora_med.serving.requests import Sampling, Scored


def generator_of(sampling: Sampling) -> torch.Generator | None:
    """The random numbers of a request; None if it is greedy."""
    if sampling.temperature == 0:
        return None
    seed = secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**63
    return torch.Generator().manual_seed(seed)


def choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """The next token's id, from finite logits (words,); forbidden words are minus infinity."""
    if generator is None:
        return int(logits.argmax())
    scores = logits.double().cpu()
    chances = torch.softmax((scores - scores.max()) / sampling.temperature, 0)
    if sampling.top_p < 1:
        chances = _nucleus(chances, sampling.top_p)
    sums = chances.cumsum(0)
    drawn = torch.rand((), generator=generator, dtype=torch.float64) * sums[-1]
    token = min(int(torch.searchsorted(sums, drawn, right=True)), len(sums) - 1)
    while chances[token] == 0:  # only by rounding at the very end
        token -= 1
    return token


def _nucleus(chances: torch.Tensor, top_p: float) -> torch.Tensor:
    """The chances of the likeliest words that together reach `top_p`; those of the others are 0."""
    ordered, words = chances.sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered
    kept = torch.zeros_like(chances)
    inside = before < top_p
    inside[0] = True
    kept[words[inside]] = ordered[inside]
    return kept


def scored(
    logits: torch.Tensor, token: int, alternatives: int, text_of: Callable[[int], str]
) -> tuple[float, tuple[Scored, ...]]:
    """The log-probability of a token, and the best alternatives, the best first; logits (words,) are the model's."""
    logprobs = torch.log_softmax(logits.float(), 0)
    return float(logprobs[token]), _best(logprobs, alternatives, text_of)


def scored_prompt(
    logits: torch.Tensor, tokens: Sequence[int], alternatives: int, text_of: Callable[[int], str]
) -> tuple[list[float], list[tuple[Scored, ...]]]:
    """What `scored` gives for each of `tokens`, from the logits (tokens, words) after the token before it."""
    logprobs = torch.log_softmax(logits.float(), 1)
    own = logprobs[torch.arange(len(tokens)), torch.tensor(list(tokens), dtype=torch.long, device=logits.device)]
    return own.tolist(), [_best(row, alternatives, text_of) for row in logprobs]


def _best(logprobs: torch.Tensor, alternatives: int, text_of: Callable[[int], str]) -> tuple[Scored, ...]:
    if not alternatives:
        return ()
    values, words = logprobs.topk(min(alternatives, len(logprobs)))
    return tuple(
        Scored(word, text_of(word), value) for word, value in zip(words.tolist(), values.tolist(), strict=True)
    )
