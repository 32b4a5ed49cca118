"""Random damage to the bytes of a file, for the tests that feed it to readers."""

from __future__ import annotations

import random
from collections.abc import Sequence

DAMAGES = ("changed byte", "taken out", "doubled", "piece", "many pieces", "cut short")


def damaged(
    content: bytes, draw: random.Random, pieces: Sequence[bytes], *, most: int, kinds: Sequence[str] = DAMAGES
) -> bytes:
    """The bytes with one to `most` damages of kinds drawn from `kinds`; a piece is put in from `pieces`."""
    found = bytearray(content)
    for _ in range(draw.randint(1, most)):
        kind, place, length = draw.choice(kinds), draw.randrange(len(found) or 1), draw.randint(1, 80)
        if kind == "changed byte" and found:
            found[place] = draw.randrange(256)
        elif kind == "taken out":
            del found[place : place + length]
        elif kind == "doubled":
            found[place:place] = found[place : place + length]
        elif kind == "piece":
            found[place:place] = draw.choice(pieces)
        elif kind == "many pieces":
            found[place:place] = draw.choice(pieces) * draw.choice((100, 5000))
        elif kind == "cut short":
            del found[place:]
    return bytes(found)
