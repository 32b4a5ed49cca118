"""A whole server: what may be asked, where it listens, whom it admits, and its end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lora_med.audit_trail import recorded
from lora_med.errors import StoppedError, UsageError
from lora_med.host_headers import is_loopback
from lora_med.serving.api import build_app
from lora_med.serving.requests import Limits
from lora_med.serving.served_models import Audience, ServedModel
from lora_med.serving.server_process import bind, serve, url_of
from lora_med.serving.start import Wanted, open_all, running_engine
from lora_med.serving.web.allowed_hosts import AllowedHosts, check_names
from lora_med.serving.web.api_keys import ApiKeys, read_keys
from lora_med.serving.web.request_guard import Bounds

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Door:
    """Where a server listens and whom it admits; `names` are its further host names."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key_file: Path | None = None
    admin_key_file: Path | None = None
    names: tuple[str, ...] = ()
    permission: str | None = None
    bounds: Bounds = field(default_factory=Bounds)


def run_server(wanted: Wanted, door: Door, limits: Limits, announce: Callable[[str, list[ServedModel]], None]) -> None:
    """Serve until a signal ends it; what is cheap to refuse is refused before the base is loaded.

    Args:
        announce: called with the address and the models once requests are taken.

    Raises:
        UsageError: other machines could ask without a key.
        StoppedError: a second signal broke off running requests.
        LoraMedError: an adapter, a base, a file of keys or an address that does not allow it.
    """
    with _ending_quietly():
        keys = ApiKeys() if door.api_key_file is None else read_keys(door.api_key_file, "--api-key-file")
        admin_keys = ApiKeys() if door.admin_key_file is None else read_keys(door.admin_key_file, "--admin-key-file")
        if not is_loopback(door.host) and not keys:
            raise UsageError(
                f"{door.host!r} can be reached from other machines, so requests need a key",
                where="--host",
                fix="--api-key-file FILE, or --host 127.0.0.1",
            )
        hosts = AllowedHosts(door.host, check_names(door.names, "--allow-host"))
        audience = Audience(permission=door.permission, has_keys=bool(keys))
        opened = open_all(wanted, audience)
        about = {"base": opened.base, "adapters": [one.name for one in opened.adapters], "pid": os.getpid()}
        about |= {"host_name": door.host, "port": door.port, "keys": bool(keys), "permission": door.permission}
        with (
            recorded("serve", **about) as facts,
            bind(door.host, door.port) as bound,
            running_engine(opened, limits, audience) as (engine, models, base),
        ):
            guard = build_app(
                engine, models, base, limits, hosts=hosts, keys=keys, admin_keys=admin_keys, bounds=door.bounds
            )
            broken_off = serve(
                guard,
                bound,
                break_off=lambda: engine.stop(drain=False),
                ready=lambda: announce(url_of(bound), models.all),
            )
            facts["broken_off"] = broken_off
    if broken_off:
        raise StoppedError("a second signal broke off running requests", fix="wait after the first one: it drains")


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """Exit 0 on a signal while nothing can run yet; the server has its own handlers while it serves."""
    before = {number: signal.signal(number, _exit) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: object) -> None:
    sys.exit(0)
