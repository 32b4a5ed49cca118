"""The options of a server and of its engine, and their values together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lora_med.serving.requests import Limits
    from lora_med.serving.web.request_guard import Bounds

MEBIBYTE, GIBIBYTE = 1 << 20, 1 << 30
Host = Annotated[str, typer.Option(help="The address to listen on; any but loopback needs --api-key-file.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")]
ApiKeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file of API keys, one a line, that only you can read.")
]
AdminKeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file of keys that may load, replace and unload adapters.")
]
AllowHost = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A further host name of this server; repeat it for several.")
]
MaxBody = Annotated[float, typer.Option(min=0.001, help="The largest body of a request, in MiB.")]
MaxConnections = Annotated[int, typer.Option(min=1, help="The most open connections.")]
ClientSeconds = Annotated[
    float, typer.Option(min=0.1, help="How long a client may take to send a request, or take nothing of an answer.")
]
MostResident = Annotated[int, typer.Option(min=1, help="The most adapters in memory; others are read when asked.")]
KvMemory = Annotated[float, typer.Option(min=0.001, help="The most memory of keys and values, in GiB.")]
MaxBatch = Annotated[int, typer.Option(min=1, help="The most requests in one decoding batch.")]
MaxQueue = Annotated[int, typer.Option(min=0, help="The most requests that wait.")]
MaxPerKey = Annotated[int, typer.Option(min=1, help="The most requests of one key that run or wait.")]
MaxPromptTokens = Annotated[int, typer.Option(min=1, help="The longest prompt, in tokens.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")]


def bounds_of(max_body: float, max_connections: int, client_seconds: float) -> Bounds:
    """The options as the web interface takes them."""
    from lora_med.serving.web.request_guard import Bounds

    return Bounds(
        body_bytes=int(max_body * MEBIBYTE),
        body_seconds=client_seconds,
        header_seconds=client_seconds,
        stall_seconds=client_seconds,
        connections=max_connections,
    )


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
