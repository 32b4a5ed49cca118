"""Which Host and Origin headers are admitted, so that no web page reaches the server under a name of its own.

A page on the internet can make a browser send requests here: from its own origin, or under its own name once that name
resolves to this machine (DNS rebinding). The first shows in Origin, the second in Host. A name is admitted if it is
`localhost` on a loopback address or was allowed by an option. An IP address cannot be rebound: the address that the
server listens on is admitted, and on 0.0.0.0 or :: any address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lora_med.errors import SettingsError
from lora_med.serving.web.error_bodies import ApiError, shown

LOCALHOST = "localhost"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address; a name other than localhost counts as reachable."""
    if address.lower().rstrip(".") == LOCALHOST:
        return True
    parsed = _address(address)
    return parsed is not None and parsed.is_loopback


@dataclass(frozen=True)
class AllowedHosts:
    """The address that the server listens on, and the further names of it that are admitted, in lower case."""

    address: str
    names: tuple[str, ...] = ()

    def check(self, hosts: Sequence[str], origins: Sequence[str]) -> None:
        """Admit a request by its Host and Origin headers.

        Raises:
            ApiError: 400 without exactly one Host; 403 if the host or the origin is not admitted.
        """
        if len(hosts) != 1 or len(origins) > 1:
            raise ApiError(400, "a request has one Host, and at most one Origin", code="invalid_host", close=True)
        host = _host(hosts[0])
        if host is None or not self._admits(host):
            raise ApiError(
                403,
                f"the host {shown(hosts[0])} is not served here; fix: --allow-host NAME",
                code="invalid_host",
                close=True,
            )
        if origins and _origin_host(origins[0]) != hosts[0].lower():
            raise ApiError(
                403,
                f"the origin {shown(origins[0])} is not this server; fix: one origin for page and server",
                code="invalid_origin",
                close=True,
            )

    def _admits(self, host: str) -> bool:
        if host in self.names:
            return True
        if host == LOCALHOST:
            return is_loopback(self.address) or _is_any(self.address)
        asked, own = _address(host), _address(self.address)
        if asked is None:
            return host == self.address.lower()
        if own is None or own.is_loopback:
            return asked.is_loopback
        return own.is_unspecified or asked == own


def check_names(names: Sequence[str], option: str) -> tuple[str, ...]:
    """Host names as AllowedHosts takes them.

    Raises:
        SettingsError: one has a scheme, a port, a path or a wildcard.
    """
    for name in names:
        if _host(name) != name.lower().strip("[]").rstrip(".") or "*" in name or not name:
            raise SettingsError(
                f"{name!r} is not the name of a host",
                where=option,
                fix="a name alone, such as models.hospital.example, without https://, port or *",
            )
    return tuple(name.lower().strip("[]").rstrip(".") for name in names)


def _host(header: str) -> str | None:
    """The host of a Host header, in lower case and without its port; None if the header is not one."""
    if not header.isascii() or any(letter in header for letter in "/\\@?# \t,"):
        return None
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    return (parts.hostname or "").rstrip(".") or None


def _origin_host(header: str) -> str | None:
    """Host and port of an Origin header, in lower case; None if the header is not one."""
    try:
        return urlsplit(header).netloc.lower()
    except ValueError:
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_any(address: str) -> bool:
    parsed = _address(address)
    return parsed is not None and parsed.is_unspecified
