"""Scores of named entities: which mentions were found, with their exact offsets and by looser readings of "found".

Plain functions on lists of mentions, and F1 of arrays of counts, for the bootstrap. Strict: document, start, end and
type agree; equal mentions count once. Relaxed: within each type the predicted mentions, by start and then end,
each take the gold mention not taken yet that shares at least one character with them and whose ends are nearest (the
first of several); one prediction finds one mention at most. That is nervaluate's `ent_type`, counted type by type.
A predicted mention that stands nowhere in the text is always wrong. Precision, recall and F1 of nothing are 0.

Source: Segura-Bedmar et al. 2013 (SemEval-2013 task 9) for the two readings; Wei et al. 2016 for BC5CDR's strict one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_med.errors import DataError

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mention:
    """A named entity: `place` is (start, end) in characters of its document, end exclusive; None if it stands nowhere.

    `document` names the item that was annotated; two items of one name would be one document here.
    """

    document: str
    type: str
    text: str
    place: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many mentions were found, how many there are, and how many were predicted."""

    hits: int
    gold: int
    predicted: int

    @property
    def precision(self) -> float:
        """Share of the predicted mentions that are right."""
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold mentions that were found."""
        return self.hits / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(f1_of_counts(np.array([self.hits, self.gold, self.predicted], dtype=np.float64)))


def f1_of_counts(counts: Numbers) -> Numbers:
    """F1 from arrays of shape (..., 3) that hold hits, gold and predicted mentions: 2 hits / (gold + predicted)."""
    total = counts[..., 1] + counts[..., 2]
    return np.divide(2 * counts[..., 0], total, out=np.zeros_like(total), where=total > 0)


def strict(gold: Sequence[Mention], predicted: Sequence[Mention]) -> dict[str, Counts]:
    """Counts of each type: a hit has the document, start, end and type of a gold mention.

    Raises:
        DataError: a gold mention has no place.
    """
    _check_gold(gold)
    found: dict[str, tuple[set[Hashable], set[Hashable]]] = {}
    nowhere = Counter(one.type for one in predicted if one.place is None)
    for side, mentions in enumerate((gold, predicted)):
        for one in mentions:
            places = found.setdefault(one.type, (set(), set()))[side]
            if one.place is not None:
                places.add((one.document, one.place))
    return {kind: Counts(len(a & b), len(a), len(b) + nowhere[kind]) for kind, (a, b) in sorted(found.items())}


def collapsed(gold: Sequence[Mention], predicted: Sequence[Mention]) -> dict[str, Counts]:
    """Counts of each type over the unique (document, type, text), wherever and however often it stands.

    Another task than finding mentions, and an easier one: in BC5CDR half of the mentions repeat one before them. Never
    to be set beside strict scores.
    """
    found: dict[str, tuple[set[Hashable], set[Hashable]]] = {}
    for side, mentions in enumerate((gold, predicted)):
        for one in mentions:
            found.setdefault(one.type, (set(), set()))[side].add((one.document, one.text))
    return {kind: Counts(len(a & b), len(a), len(b)) for kind, (a, b) in sorted(found.items())}


def relaxed(gold: Sequence[Mention], predicted: Sequence[Mention]) -> dict[str, Counts]:
    """Counts of each type: a hit shares a character with a gold mention of its type; see the top of this file.

    Raises:
        DataError: a gold mention has no place.
    """
    sizes = strict(gold, predicted)
    wanted = _places(gold)
    hits = Counter[str]()
    for (document, kind), places in _places(predicted).items():
        hits[kind] += _taken(wanted.get((document, kind), []), places)
    return {kind: Counts(hits[kind], one.gold, one.predicted) for kind, one in sizes.items()}


def unseen(mentions: Iterable[Mention], seen: Collection[str]) -> list[Mention]:
    """The mentions whose casefolded text is not among `seen`: what cannot have been learned by heart.

    Applied to gold and predictions alike before they are scored; strict hits have the same text on both sides.
    """
    return [one for one in mentions if one.text.casefold() not in seen]


def micro(counts: Mapping[str, Counts]) -> Counts:
    """All types' counts added up."""
    every = counts.values()
    return Counts(sum(one.hits for one in every), sum(one.gold for one in every), sum(one.predicted for one in every))


def macro_f1(counts: Mapping[str, Counts], types: Sequence[str] | None = None) -> float:
    """Mean F1 of the types, each weighing the same however rare.

    Args:
        types: those to average, an absent one scoring 0; None takes every type of gold or predictions, as seqeval does.

    Raises:
        DataError: there is no type to average.
    """
    names = list(counts) if types is None else list(types)
    if not names:
        raise DataError("no mention and no type: there is nothing to average")
    nothing = Counts(0, 0, 0)
    return sum(counts.get(name, nothing).f1 for name in names) / len(names)


def hallucinated_rate(predicted: Sequence[Mention]) -> float:
    """Share of the predicted mentions that stand nowhere in their text; 0 if nothing was predicted."""
    return sum(one.place is None for one in predicted) / len(predicted) if predicted else 0.0


def invalid_rate(sound: Sequence[bool]) -> float:
    """Share of the answers that are not the JSON list that was asked for.

    Raises:
        DataError: there is no answer.
    """
    if not sound:
        raise DataError("no answers: there is no share of invalid ones")
    return sum(not one for one in sound) / len(sound)


def _check_gold(gold: Sequence[Mention]) -> None:
    lost = [one for one in gold if one.place is None]
    if lost:
        raise DataError(
            f"{len(lost)} of {len(gold)} gold mentions have no place in their text",
            where=f"document {lost[0].document}",
            fix="give start and end of every annotated mention",
        )


def _places(mentions: Iterable[Mention]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """(document, type) -> the places, each once, by start and then end."""
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for one in mentions:
        if one.place is not None:
            found.setdefault((one.document, one.type), set()).add(one.place)
    return {key: sorted(places) for key, places in found.items()}


def _taken(gold: Sequence[tuple[int, int]], predicted: Sequence[tuple[int, int]]) -> int:
    """How many of the gold places the predicted ones take, each at most one."""
    left = list(gold)
    for start, end in predicted:
        near = [place for place in left if place[0] < end and start < place[1]]
        if near:
            left.remove(min(near, key=lambda place: abs(place[0] - start) + abs(place[1] - end)))
    return len(gold) - len(left)
