"""The inverse of a template: which option a generated answer means. What is not clearly one option is none."""

from __future__ import annotations

import re
from collections.abc import Sequence

QUOTES = "\"'“”‘’*_`([{ \t"
CLOSING = r"[\s\"'”’*_`)\]}]*"
ENDS = rf"(?={CLOSING}(?:[.,:;!?)\]—–-]|$))"  # what follows a label that stands for itself
ENDS_OR_JOINED = rf"(?={CLOSING}(?:[.,:;!?)\]—–/-]|$|(?:or|and)\b))"
SAID = (
    r"(?:answer|choice|option|diagnosis)\b[ \t]*(?:is\b|would be\b|:|=)?[ \t]*(?:option\b|choice\b|:)?[\s\"'“‘*_`(\[]*"
)
NEGATED = re.compile(
    r"(?:\bnot|n['’]t|\bnever|\bneither|\bexcept)\s+(?:be\s+|the\s+|option\s+)?[\"'“*(]*$", re.IGNORECASE
)


def read_choice(text: str, options: Sequence[str]) -> str | None:
    """The option that `text` gives, or None if it gives none or leaves it open.

    The text's beginning decides (`Yes, because ...`); then what it says is the answer (`the answer is yes`), wherever
    it says so; then an option that alone is named in the first line, at the end of a phrase and not denied. Case and
    the quotes or stars around a word do not matter.
    """
    line = _first_line(text)
    bare = line.lstrip(QUOTES).casefold()
    for option in sorted(options, key=len, reverse=True):
        if begun := re.match(rf"{_words(option)}(?!\w)", bare):
            return None if _joined(bare[begun.end() :], options, r"/|or\b|and\b") else option
    said = {
        option for option in options if re.search(rf"\b{SAID}{_words(option)}{ENDS}", text.casefold(), re.MULTILINE)
    }
    return _only(said) if said else _only(_named(line, options))


def read_letter(text: str, letters: Sequence[str], options: Sequence[str]) -> str | None:
    """The letter that `text` gives to a question with lettered options, or None if it gives none or more than one.

    It may begin with a letter that stands for itself (`B`, `(B)`, `**B.** Aspirin`, but not `A man`), say what the
    answer is (`The answer is B`), or else name one letter, or the words of one option, in its first line. A letter
    beside the words of another option is no answer.
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
    said = {
        letter
        for letter, option in zip(letters, options, strict=True)
        if re.search(
            rf"\b{SAID}(?:{letter}(?:{ENDS}|\s+{_words(option)}(?!\w))|{_words(option)}(?!\w))",
            text,
            re.IGNORECASE | re.MULTILINE,
        )
    }
    if said:
        return _only(said)
    places = {letter: re.finditer(rf"(?<![\w'’-]){letter}{ENDS_OR_JOINED}", line) for letter in letters}
    alone = {letter for letter, found in places.items() if any(_held(line, one) for one in found)}
    return _only(alone | meant)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _words(option: str) -> str:
    """An option's words as a pattern, case set aside."""
    return r"\s+".join(map(re.escape, option.strip().casefold().split())) or r"(?!)"


def _joined(rest: str, others: Sequence[str], by: str) -> bool:
    """Whether what follows a label is another one, as in `A or B`."""
    other = "|".join(map(_words, others))
    return re.match(rf"{CLOSING}(?:{by})[\s\"'“*_`(\[]*(?:{other})(?!\w)", rest, re.IGNORECASE) is not None


def _held(line: str, found: re.Match[str]) -> bool:
    """Whether what was found is not denied by the words before it."""
    return NEGATED.search(line[: found.start()]) is None


def _named(line: str, options: Sequence[str]) -> set[str]:
    """Options whose words stand in the line at the end of a phrase, not denied and not within a longer option's."""
    plain = line.casefold()
    taken: list[tuple[int, int]] = []
    named: set[str] = set()
    for option in sorted(options, key=len, reverse=True):
        for found in re.finditer(rf"(?<!\w){_words(option)}(?!\w){ENDS_OR_JOINED}", plain):
            if not any(start <= found.start() and found.end() <= end for start, end in taken):
                taken.append(found.span())
                if _held(plain, found):
                    named.add(option)
    return named


def _only(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None
