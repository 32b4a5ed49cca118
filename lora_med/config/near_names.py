"""Did you mean: the nearest known name, for every message that refuses an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None if none is near."""
    candidates = sorted(known)
    found = difflib.get_close_matches(name.lower(), [item.lower() for item in candidates], 1, 0.6)
    return next((item for item in candidates if found and item.lower() == found[0]), None)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line: `no data source named 'pubmedqq'; did you mean 'pubmedqa'? known: mimic, pubmed, pubmedqa`."""
    candidates = sorted(known)
    near = nearest(name, candidates)
    hint = f"; did you mean {near!r}?" if near else ";"
    return f"no {what} named {name!r}{hint} known: {', '.join(candidates) or 'none'}"
