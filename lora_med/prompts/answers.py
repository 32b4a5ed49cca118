"""The inverse of a template: the option that a generated answer means, or None if it is not clearly one option."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

QUOTES = "\"'“”‘’*_`([{ \t"
CLOSING = r"[\s\"'”’*_`)\]}]*"
ENDS = rf"(?={CLOSING}(?:[.,:;!?)\]—–-]|$))"  # what follows a label that stands alone
ENDS_OR_JOINED = rf"(?={CLOSING}(?:[.,:;!?)\]—–/-]|$|(?:or|and)\b))"
SAID = (
    r"(?:answer|choice|option|diagnosis)\b[ \t]*+(?:is\b|would be\b|:|=)?[ \t]*+(?:option\b|choice\b|:)?"
    r"[\s\"'“‘*_`(\[]*"
)
NEGATED = re.compile(
    r"(?:\bnot|n['’]t|\bnever|\bneither|\bexcept)\s+(?:be\s+|the\s+|option\s+)?[\"'“*(]*$", re.IGNORECASE
)

LONGEST_NEGATION = 200  # characters before an option in which it is looked for


def read_choice(text: str, options: Sequence[str]) -> str | None:
    """The option that `text` gives, or None if it gives none or more than one.

    Three rules apply in this order. An option at the beginning decides (`Yes, because ...`). Then a stated answer
    decides (`the answer is yes`), anywhere in the text. Then the only option named in the first line decides, if it
    ends a phrase and is not negated. Case and the quotes or stars around a word are ignored.
    """
    line = _first_line(text)
    bare = line.lstrip(QUOTES).casefold()
    for option in sorted(options, key=len, reverse=True):
        if begun := re.match(rf"{_words(option)}(?!\w)", bare):
            return None if _joined(bare[begun.end() :], options, r"/|or\b|and\b") else option
    stated = {
        option for option in options if re.search(rf"\b{SAID}{_words(option)}{ENDS}", text.casefold(), re.MULTILINE)
    }
    return _only(stated) if stated else _only(_named(line, options))


def read_letter(text: str, letters: Sequence[str], options: Sequence[str]) -> str | None:
    """The letter that `text` gives for a question with lettered options, or None if it gives none or more than one.

    The text may begin with a letter that stands alone (`B`, `(B)`, `**B.** Aspirin`, but not `A man`). It may state
    the answer (`The answer is B`). Otherwise its first line may name one letter, or the words of one option. A letter
    next to the words of another option is not an answer.
    """
    line = _first_line(text)
    named = _named(line, options)
    meant = {letter for letter, option in zip(letters, options, strict=True) if option in named}
    begins = {
        letter
        for letter, option in zip(letters, options, strict=True)
        if re.match(rf"(?:option\s+)?{letter}(?:{ENDS}|\s+{_words(option)}(?!\w))", line.lstrip(QUOTES), re.IGNORECASE)
    }
    if begins:
        letter = _only(begins)
        another = letter is None or _joined(line.lstrip(QUOTES)[1:], letters, r"[,/&+]|or\b|and\b")
        return None if another or (meant and letter not in meant) else letter
    stated = {
        letter
        for letter, option in zip(letters, options, strict=True)
        if re.search(
            rf"\b{SAID}(?:{letter}(?:{ENDS}|\s+{_words(option)}(?!\w))|{_words(option)}(?!\w))",
            text,
            re.IGNORECASE | re.MULTILINE,
        )
    }
    if stated:
        return _only(stated)
    matches_of = {letter: re.finditer(rf"(?<![\w'’-]){letter}{ENDS_OR_JOINED}", line) for letter in letters}
    alone = {letter for letter, matches in matches_of.items() if any(_not_negated(line, match) for match in matches)}
    return _only(alone | meant)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _words(option: str) -> str:
    """An option's words as a pattern for case-folded text."""
    return r"\s+".join(map(re.escape, option.strip().casefold().split())) or r"(?!)"


def _joined(rest: str, others: Sequence[str], by: str) -> bool:
    """Whether another label follows a label, as in `A or B`."""
    other = "|".join(map(_words, others))
    return re.match(rf"{CLOSING}(?:{by})[\s\"'“*_`(\[]*(?:{other})(?!\w)", rest, re.IGNORECASE) is not None


def _not_negated(line: str, match: re.Match[str]) -> bool:
    """Whether the words before a match do not negate it."""
    return NEGATED.search(line, max(0, match.start() - LONGEST_NEGATION), match.start()) is None


def _named(line: str, options: Sequence[str]) -> set[str]:
    """Options named in the line at the end of a phrase, not negated and not inside the words of a longer option."""
    plain = line.casefold()
    taken: list[tuple[int, int]] = []
    named: set[str] = set()
    for option in sorted(options, key=len, reverse=True):
        starts = [start for start, _ in taken]
        furthest = list(accumulate((end for _, end in taken), max))  # of the ranges up to each
        for match in re.finditer(rf"(?<!\w){_words(option)}(?!\w){ENDS_OR_JOINED}", plain):
            earlier = bisect_right(starts, match.start())
            if not earlier or furthest[earlier - 1] < match.end():
                taken.append(match.span())
                if _not_negated(plain, match):
                    named.add(option)
        taken.sort()
    return named


def _only(options: set[str]) -> str | None:
    return next(iter(options)) if len(options) == 1 else None
