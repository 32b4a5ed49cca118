"""The rules that every answer keeps: which Host and Origin are admitted, and the headers that protect the reader.

The server listens on loopback only. A page on the internet could still send requests here from the reader's browser,
under its own origin or under its own name made to resolve to this machine; both are refused. The rule is that of
`lora-med serve`: `localhost` or a loopback address as Host, and an Origin that is the Host.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_med.host_headers import host_of_header, is_loopback, is_same_origin

MOST_BODY = 4 << 20  # bytes of a form
HEADERS = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
     b"object-src 'none'"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)  # fmt: skip


def refusal(hosts: list[str], origins: list[str]) -> str | None:
    """Why a request with these Host and Origin headers is refused; None if it is admitted."""
    if len(hosts) != 1 or len(origins) > 1:
        return "a request has one Host, and at most one Origin"
    host = host_of_header(hosts[0])
    if host is None or not is_loopback(host):
        return "this host is not served here; open the page as http://127.0.0.1 or http://localhost"
    if origins and not is_same_origin(origins[0], hosts[0]):
        return "this origin is not the page's own"
    return None


class PageGuard:
    """An ASGI middleware that refuses foreign requests and long bodies, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in HEADERS}
                headers = [pair for pair in message["headers"] if pair[0].lower() not in own]
                message = {**message, "headers": [*headers, *HEADERS]}
            await send(message)

        named = {name: [value.decode("latin-1") for key, value in scope["headers"] if key == name] for name in
                 (b"host", b"origin", b"content-length")}  # fmt: skip
        problem, status = refusal(named[b"host"], named[b"origin"]), 403
        if problem is None and scope["method"] == "POST":
            length = "".join(named[b"content-length"])
            if not length.isdecimal() or int(length) > MOST_BODY:
                problem, status = f"a form has a length of at most {MOST_BODY:,} bytes", 413
        if problem is None:
            await self.app(scope, receive, send_guarded)
            return
        body = problem.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await send_guarded({"type": "http.response.start", "status": status, "headers": headers})
        await send_guarded({"type": "http.response.body", "body": body})
