"""Did you mean: the nearest known name, for every message that refuses an unknown one.

A wrong suggestion costs more than none, so a name is suggested only if it is a few typing errors away, or if what was
typed abbreviates it (`bf16` for `bfloat16`).
"""

from __future__ import annotations

from collections.abc import Iterable

ABBREVIATION = 0.5  # the shortest share of a name's letters that abbreviates it


def edit_distance(first: str, second: str) -> int:
    """Typing errors between two words: letters inserted, deleted, replaced, or swapped with their neighbor.

    It is the optimal string alignment distance (Damerau 1964, without edits inside a swap).
    """
    before: list[int] = []
    above = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        line = [row]
        for column, other in enumerate(second, 1):
            steps = min(above[column] + 1, line[-1] + 1, above[column - 1] + (letter != other))
            if row > 1 and column > 1 and letter == second[column - 2] and first[row - 2] == other:
                steps = min(steps, before[column - 2] + 1)
            line.append(steps)
        before, above = above, line
    return above[-1]


def _errors_allowed(first: str, second: str) -> int:
    """None for a word of one or two letters, one up to five letters (two if both start alike), two to eight, then 3."""
    length = min(len(first), len(second))
    if length == 5 and first[:3] == second[:3]:
        return 2
    return 0 if length < 3 else 1 if length < 6 else 2 if length < 9 else 3


def _abbreviates(short: str, name: str) -> bool:
    """Whether `short` has the letters of `name` in their order, its first one first, and enough of them.

    Two letters are enough where the name begins with them (`q8` for `q8_0`).
    """
    enough = len(short) >= (2 if name.startswith(short) else 3) and len(short) >= ABBREVIATION * len(name)
    if not enough or not name.startswith(short[:1]):
        return False
    letters = iter(name)
    return all(letter in letters for letter in short)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, whatever its case, or None if none is near."""
    typed = name.lower()
    ranked: list[tuple[int, str]] = []
    for candidate in known:
        distance = edit_distance(typed, candidate.lower())
        if distance <= _errors_allowed(typed, candidate.lower()) or _abbreviates(typed, candidate.lower()):
            ranked.append((distance, candidate))
    return min(ranked)[1] if ranked else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line: `no data source named 'pubmedqq'; did you mean 'pubmedqa'? known: mimic, pubmed, pubmedqa`."""
    candidates = sorted(known)
    near = nearest(name, candidates)
    hint = f"; did you mean {near!r}?" if near else ";"
    return f"no {what} named {name!r}{hint} known: {', '.join(candidates) or 'none'}"
