"""Which host a Host header names, and whether it is this machine: the first half of a guard against foreign pages.

A page on the internet can make a browser send requests to a local server, under its own name made to resolve to this
machine (DNS rebinding). A server that knows which host was asked for can refuse that.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

LOCALHOST = "localhost"


def host_of_header(header: str) -> str | None:
    """The host of a Host header, in lower case and without its port; None if the header is not one."""
    if not header.isascii() or any(letter in header for letter in "/\\@?# \t,"):
        return None
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    return (parts.hostname or "").rstrip(".") or None


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an Origin header names the host and port of a Host header; one that is no address names none."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host; a name other than localhost counts as reachable."""
    if host.lower().rstrip(".") == LOCALHOST:
        return True
    address = ip_address(host)
    return address is not None and address.is_loopback
