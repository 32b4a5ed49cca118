"""The keys of a server: read from a file that only its owner can read, held as SHA-256, compared in constant time.

A key file has one key a line; blank lines and lines that begin with `#` do not count.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path

from lora_med.errors import InputMissingError, NotPermittedError, SettingsError
from lora_med.files import readable

LEAST_LETTERS, MOST_LETTERS = 16, 512
BEARER = "bearer "


@dataclass(frozen=True)
class ApiKeys:
    """Digests of the keys; without any, every request is admitted with the identity ""."""

    digests: tuple[str, ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def identity(self, authorization: str | None) -> str | None:
        """The digest of the key in an Authorization header, "" where no key is needed, None where it is wrong."""
        if not self.digests:
            return ""
        if authorization is None or not authorization.lower().startswith(BEARER):
            return None
        digest = _digest(authorization[len(BEARER) :].strip())
        matches = [known for known in self.digests if hmac.compare_digest(known, digest)]
        return matches[0] if matches else None


def read_keys(path: Path, option: str) -> ApiKeys:
    """The keys in a file; `option` names it in messages, which never hold a key.

    Raises:
        InputMissingError: there is no such file.
        NotPermittedError: others can read it.
        SettingsError: it holds no key, or one that is short, repeated, or not printable ASCII.
    """
    with readable(path):
        if not path.is_file():
            raise InputMissingError(
                "no such file of keys", where=f"{option} {path}", fix="make one, as docs/serving.md shows"
            )
        mode = path.stat().st_mode
        content = path.read_bytes()
    if mode & 0o077:
        raise NotPermittedError(
            f"others can read the file of keys: its mode is {mode & 0o777:04o}",
            where=f"{option} {path}",
            fix=f"chmod 600 {path}",
        )
    keys: list[str] = []
    for number, line in enumerate(content.decode("latin-1").splitlines(), 1):
        key = line.strip()
        if key and not key.startswith("#"):
            _check(key, keys, f"{option} {path}, line {number}")
            keys.append(key)
    if not keys:
        raise SettingsError(
            "the file holds no key",
            where=f"{option} {path}",
            fix="one key a line: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return ApiKeys(tuple(map(_digest, keys)))


def _check(key: str, earlier: list[str], where: str) -> None:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError("a key is printable ASCII without blanks", where=where, fix="one key a line")
    if not LEAST_LETTERS <= len(key) <= MOST_LETTERS:
        raise SettingsError(
            f"the key has {len(key)} characters; a key has {LEAST_LETTERS} to {MOST_LETTERS}",
            where=where,
            fix="python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    if key in earlier:
        raise SettingsError("the key is in the file twice", where=where, fix="remove one")


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
