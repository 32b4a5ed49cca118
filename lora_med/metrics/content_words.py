"""The words of a medical text that say something, each in one form: common endings cut, abbreviations written out.

Left out are words of grammar and words that every note is made of (`patient`, `presents`, `noncontributory`): they add
nothing that a source could support. What is not seen: other words for the same thing beyond the short tables in
assets/terms (same.txt, implied.txt).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

TERMS = Path(__file__).parent.parent / "assets" / "terms"
ENDINGS = tuple("iest ingly edly ings ness less ment ies ing ers ed es er ly s e".split())  # noqa: SIM905
LEAST = 4  # letters that stay of a word
LETTERS = re.compile(r"(?:\b[A-Z] (?=[A-Z]\b))+[A-Z]\b")  # `E K G`, as a dialogue spells it out
WORD = re.compile(r"[a-z][a-z'’]+", re.I)
NEAR = 6  # content words within which those of an everyday phrase stand


def content_words(text: str) -> list[str]:
    """The words that say something, in their order, each in one form."""
    joined = LETTERS.sub(lambda match: match.group().replace(" ", ""), text)
    found = []
    for match in WORD.finditer(joined):
        word = re.sub(r"['’]\w+$", "", match.group().casefold()).strip("-'’")
        if len(word) > 1 and word not in _words("grammar") and word not in _words("notes"):
            found.append(one_form(word))
    return found


def one_form(word: str) -> str:
    """The word without common endings, or what it is taken for."""
    same = _same()
    if word in same:
        return same[word]
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= LEAST:
            stem = word.removesuffix(ending)
            stem = stem[:-1] if stem[-1] == stem[-2] and ending not in ("s", "e", "es") else stem
            return same.get(stem, stem)
    return word


def akin(word: str, other: str) -> bool:
    """Whether two forms share a beginning that leaves little of either: `smok` and `smokeless`, not `care`, `card`."""
    pairs = enumerate(zip(word, other, strict=False))
    shared = next((place for place, (one, two) in pairs if one != two), min(len(word), len(other)))
    return shared >= max(LEAST, max(len(word), len(other)) - LEAST)


@functools.cache
def _words(name: str) -> frozenset[str]:
    lines = (TERMS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


@functools.cache
def _same() -> dict[str, str]:
    lines = (TERMS / "same.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))


def implied(words: list[str]) -> set[str]:
    """What everyday words among a text's content words imply in the language of notes, each in one form."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word, []).append(place)
    return {
        meant
        for said, meanings in _implied()
        if all(word in places for word in said)
        and any(
            all(any(abs(place - start) <= NEAR for place in places[word]) for word in said) for start in places[said[0]]
        )
        for meant in meanings
    }


@functools.cache
def _implied() -> list[tuple[list[str], list[str]]]:
    lines = (TERMS / "implied.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(":")[::2] for line in lines if not line.startswith("#")]
    return [(content_words(said), [one_form(word) for word in meant.split()]) for said, meant in pairs]
