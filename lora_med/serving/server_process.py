"""The web server as a process: its socket, its connections' bounds, and how a signal ends it.

The first SIGTERM or SIGINT drains: no new request is taken, running ones finish, exit 0. A second one stops: running
requests are broken off, exit 75.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lora_med.errors import OutputError, SettingsError
from lora_med.serving.web.error_bodies import ApiError
from lora_med.serving.web.request_guard import ABORT, Bounds, RequestGuard

BACKLOG = 1024
GRACE_SECONDS = 2.0  # for broken-off answers to reach their clients, after a second signal
logger = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A socket on the address, which does not listen yet: a taken port is known before a model is loaded.

    Raises:
        OutputError: the port is taken, or may not be used.
        SettingsError: the host is no address of this machine.
    """
    if not host:
        raise SettingsError("the address to listen on is empty", where="--host", fix="--host 127.0.0.1")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{host!r} is not an address", where="--host", fix="--host 127.0.0.1") from error
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise _not_free(host, port, error) from error
    return found


def _not_free(host: str, port: int, error: OSError) -> OutputError:
    return OutputError(
        f"cannot listen on {host} port {port}: {error.strerror}",
        where="--host, --port",
        fix="choose another --port, or 0 for any that is free",
    )


def url_of(bound: socket.socket) -> str:
    """The address of a server, for people and programs."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class BoundedConnection(H11Protocol):
    """A connection on which each request's headers must be complete in time; too many connections are refused."""

    bounds = Bounds()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; past the limit of connections the answer is 503 at once."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        if len(self.connections) > self.bounds.connections:
            self.connections.discard(self)
            transport.write(_too_many())
            transport.close()
            return
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Read; headers that go on have their deadline already."""
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_headers()
        super().data_received(data)

    def handle_events(self) -> None:
        """Begin the requests whose headers are there; one that waited behind another comes here too."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """End of an answer; uvicorn closes the connection if it stays idle."""
        self._stop_waiting()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._deadline = self.loop.call_later(self.bounds.header_seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _too_many() -> bytes:
    body = json.dumps(ApiError(503, "too many connections", code="overloaded").body())
    lines = ("HTTP/1.1 503 Service Unavailable", "Retry-After: 1", "Content-Type: application/json")
    return "\r\n".join((*lines, f"Content-Length: {len(body)}", "Connection: close", "", body)).encode()


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which a first signal drains and a second one stops."""

    def __init__(self, config: uvicorn.Config, guard: RequestGuard, break_off: Callable[[], None]) -> None:
        super().__init__(config)
        self._guard, self._break_off = guard, break_off
        self.was_broken_off = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal; it is not raised again at the end, so the exit code is ours."""
        self._guard.is_draining = True
        if not self.should_exit:
            self.should_exit = True
        elif not self.was_broken_off:
            self.was_broken_off = True
            threading.Thread(target=self._break_off_all, daemon=True).start()

    def _break_off_all(self) -> None:
        """End every running request with an error, then the connections whose clients do not read it."""
        self._break_off()
        threading.Event().wait(GRACE_SECONDS)
        self._loop.call_soon_threadsafe(self._abort_connections)

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)


def serve(
    guard: RequestGuard, bound: socket.socket, *, break_off: Callable[[], None], ready: Callable[[], None]
) -> bool:
    """Serve until a signal ends it; returns whether running requests were broken off.

    Args:
        bound: the socket of `bind`.
        break_off: ends all running requests; called from another thread on the second signal.
        ready: called once the socket listens.

    Raises:
        OutputError: another process listens there by now.
    """
    connection = type("Connection", (BoundedConnection,), {"bounds": guard.bounds})
    config = uvicorn.Config(
        guard,
        http=connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=max(1, int(guard.bounds.header_seconds)),
    )
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.ERROR)  # its tracebacks never come: the guard answers every error
    server = DrainingServer(config, guard, break_off)
    try:
        bound.listen(BACKLOG)
    except OSError as error:  # another process, bound to the port at the same time, was faster
        host, port = bound.getsockname()[:2]
        raise _not_free(host, port, error) from error
    ready()
    server.run(sockets=[bound])
    return server.was_broken_off
