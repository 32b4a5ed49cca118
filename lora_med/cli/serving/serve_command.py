"""lora-med serve: adapters on one base as an OpenAI-compatible server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from lora_med.cli.command_groups import CommandGroup
from lora_med.cli.options import (
    STORE,
    Adapters,
    AsJson,
    BaseName,
    Dtype,
    Online,
    Permission,
    Quantization,
    Revision,
    Store,
)
from lora_med.cli.serving.serving_options import (
    AdminKeyFile,
    AllowHost,
    ApiKeyFile,
    ClientSeconds,
    Host,
    KvMemory,
    MaxBatch,
    MaxBody,
    MaxConnections,
    MaxPerKey,
    MaxPromptTokens,
    MaxQueue,
    MaxTokens,
    MostResident,
    Port,
    bounds_of,
    limits_of,
)
from lora_med.cli.serving.verify_response_command import verify_response_command
from lora_med.cli.terminal import print_text
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.serving.served_models import ServedModel

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    cls=CommandGroup,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
)
app.command("verify")(verify_response_command)


@app.callback()
def serve(
    context: typer.Context,
    adapter: Adapters = None,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    quantization: Quantization = None,
    dtype: Dtype = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key_file: ApiKeyFile = None,
    admin_key_file: AdminKeyFile = None,
    allow_host: AllowHost = None,
    permission: Permission = None,
    most_resident: MostResident = 8,
    kv_memory: KvMemory = 1.0,
    max_batch: MaxBatch = 32,
    max_queue: MaxQueue = 256,
    max_per_key: MaxPerKey = 64,
    max_prompt_tokens: MaxPromptTokens = 8192,
    max_tokens: MaxTokens = 4096,
    max_body: MaxBody = 4.0,
    max_connections: MaxConnections = 512,
    client_seconds: ClientSeconds = 30.0,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Serve adapters and their base over HTTP, as OpenAI's interface has it; SIGTERM drains, a second one stops.

    Every answer names the SHA-256 of the adapter that gave it. docs/serving.md has the whole interface.
    """
    if context.invoked_subcommand is not None:
        return
    prepare_environment(offline=not online)
    from lora_med.serving.start import Wanted, require_web

    require_web()
    from lora_med.serving.run_server import Door, run_server

    wanted = Wanted(tuple(adapter or ()), store, base, revision, quantization, dtype)
    bounds = bounds_of(max_body, max_connections, client_seconds)
    door = Door(host, port, api_key_file, admin_key_file, tuple(allow_host or ()), permission, bounds)
    limits = limits_of(most_resident, kv_memory, max_batch, max_queue, max_per_key, max_prompt_tokens, max_tokens)
    run_server(wanted, door, limits, lambda url, models: _announce(url, models, as_json))


def _announce(url: str, models: list[ServedModel], as_json: bool) -> None:
    """One line on stdout, once requests are taken."""
    facts = {"url": url, "models": [model.as_json() for model in models]}
    names = ", ".join(model.name for model in models)
    print_text(json.dumps(facts) if as_json else f"serving {names} at {url}", flush=True)
