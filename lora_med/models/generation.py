"""Greedy answers to many prompts: batched by length, padded on the left, each stopped at its own end token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lora_med.models.limits.not_finite import finite_logits

BATCH_TOKENS = 8192


def greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int = BATCH_TOKENS,
    processors: Callable[[Sequence[int]], Sequence[Any]] = lambda rows: (),
    advance: Callable[[int], None] = lambda count: None,
) -> list[list[int]]:
    """The likeliest next tokens after each prompt, one by one, until an end token, which is not returned.

    Args:
        prompts: token ids, none empty.
        batch_tokens: the most tokens in a batch, padding and answers counted.
        processors: maps the row numbers of a batch to the LogitsProcessors of transformers that constrain it.
        advance: called after each batch with the number of its prompts.

    Raises:
        DivergedError: the model gives NaN or infinity; it names the layer.

    Source: transformers' `generate` with `do_sample=False`; positions in a prompt are counted without the padding.
    """
    import torch

    ends, pad = stop_ids(model, tokenizer), tokenizer.pad_token_id
    answers: list[list[int]] = [[] for _ in prompts]
    for batch in _batches([len(row) for row in prompts], max_new_tokens, batch_tokens):
        width = max(len(prompts[row]) for row in batch)
        ids = torch.tensor([[pad] * (width - len(prompts[row])) + list(prompts[row]) for row in batch])
        mask = torch.tensor([[0] * (width - len(prompts[row])) + [1] * len(prompts[row]) for row in batch])
        with torch.inference_mode():
            generated = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=pad,
                eos_token_id=ends,
                logits_processor=[finite_logits(model, pad), *processors(batch)],
            )
        for row, tokens in zip(batch, generated[:, width:].tolist(), strict=True):
            answers[row] = before_end(tokens, ends)
        advance(len(batch))
    return answers


def before_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first end token."""
    return list(tokens[: next((position for position, token in enumerate(tokens) if token in ends), len(tokens))])


def _batches(lengths: Sequence[int], most_new: int, batch_tokens: int) -> list[list[int]]:
    """Prompt numbers by batch, the longest first, for little padding; a prompt over the limit has its own batch."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and (len(batches[-1]) + 1) * (lengths[batches[-1][0]] + most_new) <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """The token ids that end generation: those in the generation settings, and the tokenizer's end of text."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({number for number in [*ids, tokenizer.eos_token_id] if number is not None})
