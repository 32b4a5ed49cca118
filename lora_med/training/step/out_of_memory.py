"""Out-of-memory recovery: the batch is split into micro-batches, computed one after the other, with the same gradient.

The loss of a batch is a sum over its labeled tokens, divided by their number in the whole step. So the gradients of
its micro-batches add up to its own. No row moves to another step, and the schedule does not change.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from lora_med.errors import SettingsError
from lora_med.training.rows.batches import positions
from lora_med.training.step.fused_lora import Group

FAILED_ALLOCATION = "can't allocate memory"  # torch's message on a CPU, where it has no error class of its own
logger = logging.getLogger(__name__)


class MicroBatches:
    """Computes a batch in `count` micro-batches; `count` doubles where memory runs out, and stays for later batches.

    `cached`: whether the outputs of frozen layers are cached, which micro-batches cannot use.
    """

    def __init__(self, *, cached: bool) -> None:
        self.count = 1
        self.cached = cached

    def take(
        self,
        model: Any,
        inputs: dict[str, Any],
        step: Callable[[dict[str, Any]], torch.Tensor],
        groups: Sequence[Group],
    ) -> torch.Tensor:
        """The loss of a batch, its gradient added to the parameters.

        Args:
            step: the forward and backward pass of one micro-batch; returns its loss.
            groups: the fused layers, whose waiting outputs are dropped after a failure.

        Raises:
            SettingsError: a single document does not fit into memory.
        """
        restore = keep_gradients(model)
        while True:
            losses: list[torch.Tensor] = []
            batches = split_batch(inputs, self.count) if self.count > 1 else [inputs]
            try:
                for batch in batches:
                    losses.append(step(batch))
                return torch.stack(losses).sum()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failed = error.with_traceback(None)  # its frames hold the tensors of the step that failed
            restore()
            for group in groups:
                group.forget()
            too_large = batches[len(losses)]
            if is_one_document(too_large):
                raise does_not_fit(too_large) from failed
            self.count *= 2
            logger.warning("out of memory: from here on each batch is split into %d micro-batches", self.count)
            if self.cached:
                logger.warning("train.cache_frozen: the cache is not used for batches that are split")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or FAILED_ALLOCATION in str(error)


def split_batch(inputs: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """A batch as at most `count` micro-batches of about as many tokens each; no document is cut.

    Args:
        inputs: from the collator, labels included: one row with its documents' lengths or offsets, or padded rows.
    """
    documents = _lengths(inputs)
    if documents is None:
        rows = len(inputs["input_ids"])
        each = -(-rows // min(count, rows))
        return [
            {
                name: value[start : start + each] if isinstance(value, torch.Tensor) else value
                for name, value in inputs.items()
            }
            for start in range(0, rows, each)
        ]
    return [_documents(inputs, documents, start, end) for start, end in _spans(list(map(sum, documents)), count)]


def is_one_document(inputs: dict[str, Any]) -> bool:
    """Whether a batch or micro-batch cannot be split."""
    documents = _lengths(inputs)
    return len(inputs["input_ids"] if documents is None else documents) == 1


def _lengths(inputs: dict[str, Any]) -> Sequence[tuple[int, ...]] | None:
    """The documents of a flat row, by their lengths or, as flash attention takes them, their offsets."""
    offsets: torch.Tensor | None = inputs.get("cu_seq_lens_q")
    if offsets is None or "document_lengths" in inputs:
        return inputs.get("document_lengths")
    return [(length,) for length in offsets.diff().tolist()]


def _spans(sizes: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """First and last (excluded) document of each micro-batch: a document goes where its middle token falls.

    So the first and the last document are separated wherever there are two.
    """
    middles = [2 * before + size for before, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False)]
    shares = [middle * count // (2 * sum(sizes)) for middle in middles]
    start = 0
    for _, members in itertools.groupby(shares):
        end = start + len(list(members))
        yield start, end
        start = end


def _documents(inputs: dict[str, Any], documents: Sequence[tuple[int, ...]], start: int, end: int) -> dict[str, Any]:
    before = sum(map(sum, documents[:start]))
    chosen = list(documents[start:end])
    tokens = slice(before, before + sum(map(sum, chosen)))
    device = inputs["input_ids"].device
    offsets = torch.tensor([0, *map(sum, chosen)], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
    longest = max(map(sum, chosen))
    fields = {
        **{name: inputs[name][:, tokens] for name in ("input_ids", "labels", "attention_mask") if name in inputs},
        "position_ids": positions(chosen).to(device),
        "document_lengths": chosen,
        "cu_seq_lens_q": offsets,
        "cu_seq_lens_k": offsets,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    return {name: value for name, value in fields.items() if name in inputs}


def keep_gradients(model: Any) -> Callable[[], None]:
    """A function that restores the present gradients: a backward pass that fails has added a part of its own."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [None if parameter.grad is None else parameter.grad.clone() for parameter in trained]

    def restore() -> None:
        for parameter, gradient in zip(trained, before, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()

    return restore


def does_not_fit(inputs: dict[str, Any]) -> SettingsError:
    """The error where a single document does not fit."""
    tokens = inputs["input_ids"].shape[-1]
    return SettingsError(
        f"one document of {tokens:,} tokens needs more memory than there is",
        where="train.max_length",
        fix="set train.gradient_checkpointing=true, or a smaller train.max_length; lora-med plan shows what they need",
    )
