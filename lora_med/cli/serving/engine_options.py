"""The bounds of an engine as options, and their value together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lora_med.serving.requests import Limits

GIBIBYTE = 1 << 30
MostResident = Annotated[int, typer.Option(min=1, help="The most adapters in memory; others are read when asked.")]
KvMemory = Annotated[float, typer.Option(min=0.001, help="The most memory of keys and values, in GiB.")]
MaxBatch = Annotated[int, typer.Option(min=1, help="The most requests in one decoding batch.")]
MaxQueue = Annotated[int, typer.Option(min=0, help="The most requests that wait.")]
MaxPerKey = Annotated[int, typer.Option(min=1, help="The most requests of one key that run or wait.")]
MaxPromptTokens = Annotated[int, typer.Option(min=1, help="The longest prompt, in tokens.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")]


def limits_of(
    most_resident: int,
    kv_memory: float,
    max_batch: int,
    max_queue: int,
    max_per_key: int,
    max_prompt_tokens: int,
    max_tokens: int,
) -> Limits:
    """The options as the engine takes them."""
    from lora_med.serving.requests import Limits

    return Limits(
        most_resident=most_resident,
        kv_memory=int(kv_memory * GIBIBYTE),
        max_batch=max_batch,
        max_queue=max_queue,
        max_per_key=max_per_key,
        max_prompt_tokens=max_prompt_tokens,
        max_tokens=max_tokens,
    )
