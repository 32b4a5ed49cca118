"""Greedy answers to many prompts: batched by length, padded on the left, each stopped at its own end token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lora_med.models.limits.not_finite import finite_logits

BATCH_TOKENS = 8192


class RunBatches(Protocol):
    """Who runs batches: `in_order` this process, `SharedBatches` of evaluation several together."""

    def __call__(
        self,
        batches: Sequence[list[int]],
        compute: Callable[[list[int]], list[Any]],
        *,
        written: bool = False,
    ) -> list[list[Any]]:
        """The results of all `batches` of row numbers: lists of token ids, or arrays of numbers, one for each row.

        Args:
            compute: the results of one batch, in the order of its rows.
            written: the token ids are text that the model writes, which may repeat what it reads.
        """
        ...


def in_order(
    batches: Sequence[list[int]], compute: Callable[[list[int]], list[Any]], *, written: bool = False
) -> list[list[Any]]:
    """All batches, one after another, in this process."""
    return [compute(batch) for batch in batches]


def run_rows(
    run: RunBatches, batches: Sequence[list[int]], compute: Callable[[list[int]], list[Any]], *, written: bool = False
) -> list[Any]:
    """The results in the order of the row numbers, each of which is in one batch."""
    results = run(batches, compute, written=written)
    by_row = {
        row: result
        for rows, values in zip(batches, results, strict=True)
        for row, result in zip(rows, values, strict=True)
    }
    return [by_row[row] for row in range(len(by_row))]


def greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int = BATCH_TOKENS,
    processors: Callable[[Sequence[int]], Sequence[Any]] = lambda rows: (),
    advance: Callable[[int], None] = lambda count: None,
    run: RunBatches = in_order,
) -> list[list[int]]:
    """The likeliest next tokens after each prompt, one by one, until an end token, which is not returned.

    Args:
        prompts: token ids, none empty.
        batch_tokens: the most tokens in a batch, padding and answers counted.
        processors: maps the row numbers of a batch to the LogitsProcessors of transformers that constrain it.
        advance: called after each batch that this process runs, with the number of its prompts.
        run: runs the batches.

    Raises:
        DivergedError: the model gives NaN or infinity; it names the layer.

    Source: transformers' `generate` with `do_sample=False`; positions in a prompt are counted without the padding.
    """
    import torch

    ends, pad = stop_ids(model, tokenizer), tokenizer.pad_token_id

    def answer(batch: list[int]) -> list[list[int]]:
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
        advance(len(batch))
        return [before_end(tokens, ends) for tokens in generated[:, width:].tolist()]

    batches = _batches([len(row) for row in prompts], max_new_tokens, batch_tokens)
    return run_rows(run, batches, answer, written=True)


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
