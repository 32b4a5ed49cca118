"""Scores of named entities: which mentions were found, with their exact offsets and by looser readings of "found".

Plain functions on lists of mentions, and F1 of arrays of counts, for the bootstrap. Strict: document, start, end and
type agree; equal mentions count once. Relaxed: within each type the predicted mentions are matched in the order of
start and then end. Each takes the free gold mention that shares at least one character with it and has the nearest
ends (the first of several). One prediction finds one mention at most. That is nervaluate's `ent_type`, counted type by
type. A predicted mention that is not in the text is always wrong. Precision, recall and F1 of nothing are 0.

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
    """A named entity: `offsets` is (start, end) in characters, end exclusive; None if the text is not in the document.

    `document` names the item that was annotated; two items of one name would be one document here.
    """

    document: str
    type: str
    text: str
    offsets: tuple[int, int] | None


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
        DataError: a gold mention has no offsets.
    """
    _check_gold(gold)
    offsets_of: dict[str, tuple[set[Hashable], set[Hashable]]] = {}
    nowhere = Counter(mention.type for mention in predicted if mention.offsets is None)
    for side, mentions in enumerate((gold, predicted)):
        for mention in mentions:
            offsets = offsets_of.setdefault(mention.type, (set(), set()))[side]
            if mention.offsets is not None:
                offsets.add((mention.document, mention.offsets))
    return {kind: Counts(len(a & b), len(a), len(b) + nowhere[kind]) for kind, (a, b) in sorted(offsets_of.items())}


def collapsed(gold: Sequence[Mention], predicted: Sequence[Mention]) -> dict[str, Counts]:
    """Counts of each type over the unique (document, type, text), wherever and however often it occurs.

    This is an easier task than finding mentions: in BC5CDR half of the mentions repeat an earlier one. Do not compare
    it with strict scores.
    """
    texts_of: dict[str, tuple[set[Hashable], set[Hashable]]] = {}
    for side, mentions in enumerate((gold, predicted)):
        for mention in mentions:
            texts_of.setdefault(mention.type, (set(), set()))[side].add((mention.document, mention.text))
    return {kind: Counts(len(a & b), len(a), len(b)) for kind, (a, b) in sorted(texts_of.items())}


def relaxed(gold: Sequence[Mention], predicted: Sequence[Mention]) -> dict[str, Counts]:
    """Counts of each type: a hit shares a character with a gold mention of its type; see the top of this file.

    Raises:
        DataError: a gold mention has no offsets.
    """
    sizes = strict(gold, predicted)
    wanted = _offsets(gold)
    hits = Counter[str]()
    for (document, kind), offsets in _offsets(predicted).items():
        hits[kind] += _taken(wanted.get((document, kind), []), offsets)
    return {kind: Counts(hits[kind], size.gold, size.predicted) for kind, size in sizes.items()}


def unseen(mentions: Iterable[Mention], seen: Collection[str]) -> list[Mention]:
    """The mentions whose casefolded text is not among `seen`: what cannot have been memorized.

    Applied to gold and predictions alike before they are scored; strict hits have the same text on both sides.
    """
    return [mention for mention in mentions if mention.text.casefold() not in seen]


def micro(counts: Mapping[str, Counts]) -> Counts:
    """All types' counts added up."""
    values = counts.values()
    return Counts(
        sum(each.hits for each in values), sum(each.gold for each in values), sum(each.predicted for each in values)
    )


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
    """Share of the predicted mentions that are not in their text; 0 if nothing was predicted."""
    return sum(mention.offsets is None for mention in predicted) / len(predicted) if predicted else 0.0


def invalid_rate(sound: Sequence[bool]) -> float:
    """Share of the answers that are not the requested JSON list.

    Raises:
        DataError: there is no answer.
    """
    if not sound:
        raise DataError("no answers: there is no share of invalid ones")
    return sum(not is_sound for is_sound in sound) / len(sound)


def _check_gold(gold: Sequence[Mention]) -> None:
    lost = [mention for mention in gold if mention.offsets is None]
    if lost:
        raise DataError(
            f"{len(lost)} of {len(gold)} gold mentions have no offsets in their text",
            where=f"document {lost[0].document}",
            fix="give start and end of every annotated mention",
        )


def _offsets(mentions: Iterable[Mention]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """(document, type) -> the offsets, each once, by start and then end."""
    offsets_of: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for mention in mentions:
        if mention.offsets is not None:
            offsets_of.setdefault((mention.document, mention.type), set()).add(mention.offsets)
    return {key: sorted(offsets) for key, offsets in offsets_of.items()}


def _taken(gold: Sequence[tuple[int, int]], predicted: Sequence[tuple[int, int]]) -> int:
    """How many of the gold spans the predicted ones take, each at most one."""
    left = list(gold)
    for start, end in predicted:
        near = [span for span in left if span[0] < end and start < span[1]]
        if near:
            left.remove(min(near, key=lambda span: abs(span[0] - start) + abs(span[1] - end)))
    return len(gold) - len(left)
