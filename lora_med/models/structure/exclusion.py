"""The pattern for PEFT's `exclude_modules`: what the ends of layer names would match beside the chosen layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence


def ends_in(name: str, end: str) -> bool:
    """Whether a layer's name is `end` or ends with it after a dot, which is PEFT's rule for a list of names."""
    return name == end or name.endswith(f".{end}")


def exclusion(names: Iterable[str], ends: Sequence[str], chosen: Collection[str]) -> str | None:
    """A regular expression that fully matches each name that ends in one of `ends` and is not chosen; None if none is.

    Args:
        names: of all modules.
        ends: as in `target_modules`.
        chosen: the names of the layers to adapt, none of which it matches.
    """
    beside = [name for name in names if name not in chosen and any(ends_in(name, end) for end in ends)]
    prefixes = {tuple(name.split(".")[:length]) for name in chosen for length in range(1, name.count(".") + 2)}
    patterns: list[str] = []
    for name in beside:
        if not any(re.fullmatch(pattern, name) for pattern in patterns):
            patterns.append(_pattern(name.split("."), prefixes, chosen))
    return "|".join(patterns) if patterns else None


def _pattern(steps: list[str], prefixes: Collection[tuple[str, ...]], chosen: Collection[str]) -> str:
    """The subtree of a name that holds no chosen layer, in every layer alike if no chosen layer is among those."""
    length = next(size for size in range(1, len(steps) + 1) if tuple(steps[:size]) not in prefixes)
    rest = r"(\..+)?" if length < len(steps) else ""
    alike = r"\.".join(r"\d+" if step.isdigit() else re.escape(step) for step in steps[:length]) + rest
    if any(re.fullmatch(alike, name) for name in chosen):
        return r"\.".join(map(re.escape, steps[:length])) + rest
    return alike
