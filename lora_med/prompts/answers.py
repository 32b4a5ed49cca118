"""The inverse of a template: which option a generated answer means."""

from __future__ import annotations

import re
from collections.abc import Sequence


def read_choice(text: str, options: Sequence[str]) -> str | None:
    """The option that `text` gives, or None if it gives none or leaves it open.

    The text's beginning decides (`Yes, because ...`); failing that, an option that alone is named in the first line.
    Case and the quotes or stars around a word do not matter.
    """
    line = next((line for line in text.strip().splitlines() if line.strip()), "")
    bare = line.strip().lstrip("\"'*_`(").casefold()
    for option in sorted(options, key=len, reverse=True):
        if re.match(rf"{re.escape(option.strip().casefold())}(?!\w)", bare):
            return option
    named = [option for option in options if re.search(rf"(?<!\w){re.escape(option.strip().casefold())}(?!\w)", bare)]
    return named[0] if len(named) == 1 else None
