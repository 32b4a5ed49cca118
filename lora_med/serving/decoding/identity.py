"""Digests of named fields: two different sets of fields never have the same input to the hash."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

Field = str | bytes | None


def digest(kind: str, **fields: Field) -> str:
    """SHA-256, in hex, of a kind and its fields.

    Each name and value is hashed with a mark of its type and its length in bytes, so that no text can move from one
    field into the next, and an absent value (None) is not an empty one.
    """
    hasher = hashlib.sha256()
    for name, value in (("kind", kind), *sorted(fields.items())):
        for part in (name, value):
            content = b"" if part is None else part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            mark = b"n" if part is None else b"s" if isinstance(part, str) else b"b"
            hasher.update(mark + len(content).to_bytes(8, "big") + content)
    return hasher.hexdigest()


def token_bytes(tokens: Sequence[int]) -> bytes:
    """Token ids as bytes, eight for each, so that their number shows."""
    return array("Q", tokens).tobytes()


def prefix_digest(*, key: str, base: str, adapter: str | None, template: str, tokens: Sequence[int]) -> str:
    """The digest under which the keys and values of a prompt's beginning are cached.

    Args:
        key: identity of the API key; nothing is shared between two.
        base: the base's fingerprint, with its quantization and dtype.
        adapter: the identity of the adapter, from its files' content; None is the bare base.
        template: the digest of the template that made the tokens.
    """
    return digest("prefix", key=key, base=base, adapter=adapter, template=template, tokens=token_bytes(tokens))
