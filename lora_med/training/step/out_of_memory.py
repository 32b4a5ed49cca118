"""Out of memory in a step: the batch is cut in two and taken in turns, with the same gradient.

The loss of a batch is a sum over its labeled tokens, divided by their number in the whole step. So a batch can be
taken in parts, whose gradients add up to its own: no row moves to another step, and the schedule stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from lora_med.errors import SettingsError
from lora_med.training.rows.batches import positions

FAILED_ALLOCATION = "can't allocate memory"  # what torch says of a CPU, where it has no error class of its own


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or FAILED_ALLOCATION in str(error)


def cut(inputs: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """A batch in at most `parts` parts of about as many tokens each, no document cut; labels included.

    Args:
        inputs: as the collator makes them: one row with its documents' lengths or offsets, or padded rows.
    """
    documents = _lengths(inputs)
    if documents is None:
        rows = len(inputs["input_ids"])
        each = -(-rows // min(parts, rows))
        return [
            {name: one[start : start + each] if isinstance(one, torch.Tensor) else one for name, one in inputs.items()}
            for start in range(0, rows, each)
        ]
    return [_documents(inputs, documents, start, end) for start, end in _spans(list(map(sum, documents)), parts)]


def is_one_document(inputs: dict[str, Any]) -> bool:
    """Whether a batch, or a part of one, cannot be cut."""
    documents = _lengths(inputs)
    return len(inputs["input_ids"] if documents is None else documents) == 1


def _lengths(inputs: dict[str, Any]) -> Sequence[tuple[int, ...]] | None:
    """The documents of a flat row, by their lengths or, as flash attention takes them, their offsets."""
    offsets: torch.Tensor | None = inputs.get("cu_seq_lens_q")
    if offsets is None or "document_lengths" in inputs:
        return inputs.get("document_lengths")
    return [(length,) for length in offsets.diff().tolist()]


def _spans(sizes: Sequence[int], parts: int) -> Iterator[tuple[int, int]]:
    """First and last (excluded) document of each part: each document lies in the share where its middle falls.

    So the first and the last are apart wherever there are two.
    """
    middles = [2 * before + size for before, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False)]
    shares = [middle * parts // (2 * sum(sizes)) for middle in middles]
    start = 0
    for _, one in itertools.groupby(shares):
        end = start + len(list(one))
        yield start, end
        start = end


def _documents(inputs: dict[str, Any], documents: Sequence[tuple[int, ...]], start: int, end: int) -> dict[str, Any]:
    before = sum(map(sum, documents[:start]))
    chosen = list(documents[start:end])
    tokens = slice(before, before + sum(map(sum, chosen)))
    device = inputs["input_ids"].device
    offsets = torch.tensor([0, *map(sum, chosen)], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
    longest = max(map(sum, chosen))
    made = {
        **{name: inputs[name][:, tokens] for name in ("input_ids", "labels", "attention_mask") if name in inputs},
        "position_ids": positions(chosen).to(device),
        "document_lengths": chosen,
        "cu_seq_lens_q": offsets,
        "cu_seq_lens_k": offsets,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    return {name: value for name, value in made.items() if name in inputs}


def keep_gradients(model: Any) -> Callable[[], None]:
    """What puts the gradients back as they are now: a backward pass that fails has added some of its own."""
    trained = [one for one in model.parameters() if one.requires_grad]
    before = [None if one.grad is None else one.grad.clone() for one in trained]

    def restore() -> None:
        for one, gradient in zip(trained, before, strict=True):
            one.grad = None if gradient is None else gradient.clone()

    return restore


def too_small(inputs: dict[str, Any]) -> SettingsError:
    """The error where one document, a part by itself, does not fit."""
    tokens = inputs["input_ids"].shape[-1]
    return SettingsError(
        f"one document of {tokens:,} tokens needs more memory than there is",
        where="train.max_length",
        fix="set train.gradient_checkpointing=true, or a smaller train.max_length; lora-med plan tells what they need",
    )
