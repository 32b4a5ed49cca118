"""Whether all processes of a run have the same facts; where not, which fact, both values, and who has which."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.errors import DisagreementError
from lora_med.processes.launch import Place, named
from lora_med.processes.peers import Peers

MOST_LINES = 12
MOST_CHARACTERS = 60  # of a value
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_ABSENT = "not set"


def require_agreement(
    peers: Peers,
    facts: Mapping[str, Any],
    *,
    fix: str,
    details: Mapping[str, Any] | None = None,
    doing: str = "train the same run",
) -> None:
    """Compare `facts` (name -> JSON value, no text of data) with those of every other process.

    Where all agree, each process sends 64 characters and reads 64 of every other.

    Args:
        details: what is sent and shown beside the facts only where they differ.
        doing: what the processes would not do, in the message.

    Raises:
        DisagreementError: in every process, with one message.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    digests = peers.gather(hashlib.sha256(text.encode()).hexdigest())
    if len(set(digests)) > 1:
        own = json.dumps({**facts, **(details or {})}, default=str)
        raise disagreement([json.loads(other) for other in peers.gather(own)], peers.places, fix, doing)


def disagreement(
    facts: Sequence[Mapping[str, Any]], places: Sequence[Place], fix: str, doing: str = "train the same run"
) -> DisagreementError:
    """The error for processes with different facts, in the order of `places`."""
    names = list(dict.fromkeys(name for own in facts for name in own))
    values = {name: [_shown(own, name) for own in facts] for name in names}
    lines = [f"{name}: {_who_has_which(shown, places)}" for name, shown in values.items() if len(set(shown)) > 1]
    if not lines:  # they differ beyond what is shown of a value
        differing = [name for name in names if len({json.dumps(own.get(name)) for own in facts}) > 1]
        lines = [f"{name}: longer values that differ" for name in differing]
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return DisagreementError(
        f"the processes would not {doing}:\n  " + "\n  ".join([*lines[:MOST_LINES], *more]),
        where=named(places),
        fix=fix,
    )


def _who_has_which(shown: Sequence[str], places: Sequence[Place]) -> str:
    groups: dict[str, list[Place]] = {}
    for value, place in zip(shown, places, strict=True):
        groups.setdefault(value, []).append(place)
    return "; ".join(f"{value} in {named(group)}" for value, group in groups.items())


def _shown(facts: Mapping[str, Any], name: str) -> str:
    """A value in a message: hashes short, and not too long."""
    if name not in facts:
        return _ABSENT
    value = facts[name]
    text = _DIGEST.sub(r"\1", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."
