"""lora-med serve: adapters on one base as an OpenAI-compatible server."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

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
from lora_med.cli.serving.engine_options import (
    KvMemory,
    MaxBatch,
    MaxPerKey,
    MaxPromptTokens,
    MaxQueue,
    MaxTokens,
    MostResident,
    limits_of,
)
from lora_med.cli.serving.verify_response_command import verify_response_command
from lora_med.cli.terminal import print_text
from lora_med.errors import StoppedError, UsageError
from lora_med.run import prepare_environment

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    cls=CommandGroup,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
)
app.command("verify")(verify_response_command)
MEBIBYTE = 1 << 20


@app.callback()
def serve(
    context: typer.Context,
    adapter: Adapters = None,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    quantization: Quantization = None,
    dtype: Dtype = None,
    host: Annotated[str, typer.Option(help="The address to listen on; any but loopback needs --api-key-file.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of API keys, one a line, that only you can read.")
    ] = None,
    admin_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of keys that may load, replace and unload adapters.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further host name of this server; repeat it for several."),
    ] = None,
    permission: Permission = None,
    most_resident: MostResident = 8,
    kv_memory: KvMemory = 1.0,
    max_batch: MaxBatch = 32,
    max_queue: MaxQueue = 256,
    max_per_key: MaxPerKey = 64,
    max_prompt_tokens: MaxPromptTokens = 8192,
    max_tokens: MaxTokens = 4096,
    max_body: Annotated[float, typer.Option(min=0.001, help="The largest body of a request, in MiB.")] = 4.0,
    max_connections: Annotated[int, typer.Option(min=1, help="The most open connections.")] = 512,
    client_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long a client may take to send a request, or take nothing of an answer.")
    ] = 30.0,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Serve adapters and their base over HTTP, as OpenAI's interface has it; SIGTERM drains, a second one stops.

    Every answer names the SHA-256 of the adapter that gave it. docs/serving.md has the whole interface.
    """
    if context.invoked_subcommand is not None:
        return
    signal.signal(signal.SIGTERM, _nothing_runs_yet)
    signal.signal(signal.SIGINT, _nothing_runs_yet)
    prepare_environment(offline=not online)
    from lora_med.serving.start import open_all, require_web, running_engine

    require_web()
    from lora_med.serving.api import build_app
    from lora_med.serving.served_models import Audience
    from lora_med.serving.server_process import bind, serve, url_of
    from lora_med.serving.web.allowed_hosts import AllowedHosts, check_names, is_loopback
    from lora_med.serving.web.api_keys import ApiKeys, read_keys
    from lora_med.serving.web.request_guard import Bounds

    keys = ApiKeys() if api_key_file is None else read_keys(api_key_file, "--api-key-file")
    admin_keys = ApiKeys() if admin_key_file is None else read_keys(admin_key_file, "--admin-key-file")
    if not is_loopback(host) and not keys:
        raise UsageError(
            f"{host} can be reached from other machines, so requests need a key",
            where="--host",
            fix="--api-key-file FILE, or --host 127.0.0.1",
        )
    hosts = AllowedHosts(host, check_names(allow_host or (), "--allow-host"))
    limits = limits_of(most_resident, kv_memory, max_batch, max_queue, max_per_key, max_prompt_tokens, max_tokens)
    bounds = Bounds(int(max_body * MEBIBYTE), client_seconds, client_seconds, client_seconds, max_connections)
    audience = Audience(permission=permission, has_keys=bool(keys))
    opened = open_all(adapter or (), store, base=base, revision=revision, quantization=quantization, audience=audience)
    with bind(host, port) as bound, running_engine(opened, store, limits, dtype=dtype, audience=audience) as running:
        engine, models, loaded = running
        guard = build_app(engine, models, loaded, limits, hosts=hosts, keys=keys, admin_keys=admin_keys, bounds=bounds)

        def ready() -> None:
            names = [model.name for model in models.all]
            facts = {"url": url_of(bound), "models": [model.as_json() for model in models.all]}
            print_text(json.dumps(facts) if as_json else f"serving {', '.join(names)} at {url_of(bound)}", flush=True)

        broken_off = serve(guard, bound, break_off=lambda: engine.stop(drain=False), ready=ready)
    if broken_off:
        raise StoppedError("a second signal broke off running requests", fix="wait after the first one: it drains")


def _nothing_runs_yet(number: int, frame: object) -> None:
    """A signal before any request could come: there is nothing to drain."""
    sys.exit(0)
