"""The content words of a medical text, normalized: common endings are cut, abbreviations are written out.

Grammar words and words of every note (`patient`, `presents`, `noncontributory`) are excluded: they make no claim that a
source could support. Not recognized: synonyms beyond the short tables in assets/terms (same.txt, implied.txt).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

TERMS = Path(__file__).parent.parent / "assets" / "terms"
ENDINGS = tuple("iest ingly edly ings ness less ment ies ing ers ed es er ly s e".split())  # noqa: SIM905
LEAST = 4  # letters that remain of a word
LETTERS = re.compile(r"(?:\b[A-Z] (?=[A-Z]\b))+[A-Z]\b")  # `E K G`, as a dialogue spells it out
WORD = re.compile(r"[a-z][a-z'’]+", re.I)
NEAR = 6  # the words of an everyday phrase are within this many content words


def content_words(text: str) -> list[str]:
    """The content words in their order, each normalized."""
    joined = LETTERS.sub(lambda match: match.group().replace(" ", ""), text)
    words = []
    for match in WORD.finditer(joined):
        word = re.sub(r"['’]\w+$", "", match.group().casefold()).strip("-'’")
        if len(word) > 1 and word not in _words("grammar") and word not in _words("notes"):
            words.append(one_form(word))
    return words


def one_form(word: str) -> str:
    """The word without common endings, or its listed synonym."""
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
    shared = next(
        (index for index, (letter, other_letter) in pairs if letter != other_letter), min(len(word), len(other))
    )
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
    """The normalized clinical terms that everyday phrases in a text's content words imply."""
    positions: dict[str, list[int]] = {}
    for position, word in enumerate(words):
        positions.setdefault(word, []).append(position)
    return {
        meaning
        for phrase, meanings in _implied()
        if all(word in positions for word in phrase)
        and any(
            all(any(abs(position - start) <= NEAR for position in positions[word]) for word in phrase)
            for start in positions[phrase[0]]
        )
        for meaning in meanings
    }


@functools.cache
def _implied() -> list[tuple[list[str], list[str]]]:
    lines = (TERMS / "implied.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(":")[::2] for line in lines if not line.startswith("#")]
    return [(content_words(phrase), [one_form(word) for word in meanings.split()]) for phrase, meanings in pairs]
