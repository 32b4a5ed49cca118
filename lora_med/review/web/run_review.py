"""Serving the pages on loopback: nothing outside this machine can reach them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from lora_med.errors import OutputError

LOOPBACK = "127.0.0.1"
SECONDS_TO_END = 3  # for answers that are being written when Ctrl-C comes


def serve(application: ASGIApp, port: int, started: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; `started` gets the address. Port 0 takes a free one.

    Raises:
        OutputError: the port is taken, or only root may use it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen()  # a browser that opens the printed address at once waits and is not refused
        except OSError as error:
            reason = (
                "is taken by another program" if error.errno == errno.EADDRINUSE else f"is refused: {error.strerror}"
            )
            raise OutputError(f"port {port} {reason}", where="--port", fix="name another port, or 0 for any") from error
        started(f"http://{LOOPBACK}:{listener.getsockname()[1]}")
        options = uvicorn.Config(
            application,
            lifespan="off",
            access_log=False,  # addresses hold the raters' tokens
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SECONDS_TO_END,
        )
        uvicorn.Server(options).run(sockets=[listener])
