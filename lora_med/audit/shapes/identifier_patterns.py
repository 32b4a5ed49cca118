"""The shapes of possible identifiers, each with the places where it can begin: only there is it tried.

Every pattern takes time linear in the text, whatever the text: where a match cannot go on, nothing that was read is
read again from many other places. Runs that a match may skip are possessive (`++`) or bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from lora_med.audit.shapes.pattern_words import (
    AFTER_HEADING,
    AFTER_NAME,
    BEFORE_NAME,
    BEFORE_NAME_WORDS,
    CAPITAL_NAME,
    CAPITAL_NAMES,
    DEGREE,
    FACILITY,
    KIN,
    KIN_WORDS,
    LABEL,
    LAST_FIRST,
    LOWER,
    MONTH,
    MONTH_WORDS,
    NAME,
    NAMES,
    NO_ANSWER,
    NO_LOWER_NAME,
    NO_NAME,
    NUMBERED,
    NUMBERED_WORDS,
    PLACE_VERB,
    SPELLED_AGE,
    STREET,
    TITLE,
    TITLE_WORDS,
    UPPER,
    WEEKDAY_DATE,
    WEEKDAY_WORDS,
)

# Patterns without regard to case take these for i, s and k.
_SUBSTITUTES = str.maketrans("\u0130\u0131\u017f\u212a", "iisk")
_SUBSTITUTE = re.compile("[\u0130\u0131\u017f\u212a]")
_CAPITAL = re.compile(rf"(?<![{UPPER}{LOWER}])[{UPPER}]")
_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]+")
WORD_BEGINNING = 3


class Places:
    """Where patterns may begin in one text, ascending: at words, at capitals and at digits.

    Letters are compared as patterns do without regard to case.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._capitals = [match.start() for match in _CAPITAL.finditer(text)]
        self._digits = [match.start() for match in _DIGITS.finditer(text)]
        self._words: dict[str, list[int]] = {}
        folded = (text.translate(_SUBSTITUTES) if _SUBSTITUTE.search(text) else text).lower()
        for match in _WORD.finditer(folded):
            word = match[0]
            if word in _WORDS:
                for begins in _WORDS[word]:
                    self._words.setdefault(begins, []).append(match.start())
            if word[:WORD_BEGINNING] in _BEGINNINGS:
                for begins in _BEGINNINGS[word[:WORD_BEGINNING]]:
                    self._words.setdefault(begins, []).append(match.start())

    def of(self, shape: Shape) -> list[int]:
        """Every place where the shape may begin, and some where it does not."""
        words = self._words.get(shape.begins)
        lists = [] if words is None else [words]
        if shape.at_capitals:
            lists.append(self._capitals)
        if shape.at_digits:
            lists.append(self._before_digits() if shape.sign_before else self._digits)
        return sorted(chain.from_iterable(lists)) if len(lists) > 1 else lists[0] if lists else []

    def _before_digits(self) -> list[int]:
        """Digits, and a plus sign or bracket before them."""
        text = self.text
        return [
            place
            for start in self._digits
            for place in ((start - 1, start) if start and text[start - 1] in "+(" else (start,))
        ]


@dataclass(frozen=True, slots=True)
class Shape:
    """A pattern, the type of what it finds, and where it can begin; without any place it is searched for everywhere.

    `begins` lists, with blanks between: words in small letters, beginnings of words (`mrn*`), `A` for capitals, `0` for
    digits and `+0` for digits or a sign before them. `needs` are texts of which one is in every text with a match.
    """

    kind: str
    pattern: re.Pattern[str]
    begins: str = ""
    needs: tuple[str, ...] = ()
    at_capitals: bool = False
    at_digits: bool = False
    sign_before: bool = False

    def spans(self, places: Places) -> Iterator[tuple[int, int]]:
        """The range of each match, or of its `value`, from left to right; the same as a search of the text finds."""
        text, pattern = places.text, self.pattern
        if self.needs and not any(need in text for need in self.needs):
            return
        value = "value" if "value" in pattern.groupindex else 0
        if not self.begins:
            for match in pattern.finditer(text):
                yield match.span(value)
            return
        end = 0
        for place in places.of(self):
            if place >= end and (match := pattern.match(text, place)) is not None:
                yield match.span(value)
                end = match.end()


def _shape(kind: str, pattern: str, begins: str = "", *, flags: int = 0, needs: tuple[str, ...] = ()) -> Shape:
    tokens = begins.split()
    at_digits, sign_before = "0" in tokens or "+0" in tokens, "+0" in tokens
    return Shape(kind, re.compile(pattern, flags), begins, needs, "A" in tokens, at_digits, sign_before)


_I = re.IGNORECASE
SHAPES: tuple[Shape, ...] = (
    _shape("EMAIL", r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b", needs=("@",)),
    _shape("URL", r"\b(?:https?://|www\.)[^\s<>\"')\]]+", "http https www", flags=_I),
    _shape(
        "PHONE",
        r"(?<![\w.-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,5}\)[ .-]?|\d{2,5}[ .-])\d{3,4}[ .-]\d{3,4}"
        r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,5})?(?![\w-])|(?<![\w.-])\d{3}-\d{4}(?![\w-])",
        "+0",
        flags=_I,
    ),
    _shape("ID", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])", "0"),
    _shape(
        "ID",
        rf"\b{NUMBERED}\s*+(?:[:#.]\s*+)?(?P<value>(?=[\w-]{{0,99}}\d)[A-Z\d][\w-]{{3,}})",
        " ".join(dict.fromkeys(f"{word[:WORD_BEGINNING]}*" for word in NUMBERED_WORDS.split())),  # a value may follow
        flags=_I,
    ),
    _shape(
        "DATE",
        r"(?<![\w/.-])(?:19|20)\d{2}[-/.](?:0?[1-9]|1[0-2])[-/.](?:[12]\d|3[01]|0?[1-9])"
        r"(?:[ ](?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?![\d:])|(?!(?!T\d)[\w/]))",
        "0",
    ),
    _shape(
        "DATE",
        r"(?<![\w/.-])(?:[12]?\d|3[01]|0[1-9])[-/.](?:[12]?\d|3[01]|0[1-9])[-/.](?:(?:19|20)\d{2}|\d{2})(?![\w/])",
        "0",
    ),
    _shape(
        "DATE",
        rf"\b{MONTH}\.?[ ]++\d{{1,2}}(?:st|nd|rd|th)?(?:,?[ ]++(?:19|20)\d{{2}})?\b|"
        rf"\b\d{{1,2}}(?:st|nd|rd|th)?(?:[ -]+of)?[ -]++{MONTH}\b\.?(?:,?[ -]++(?:19|20)\d{{2}})?|"
        rf"\b{MONTH}\.?,?[ ]++(?:19|20)\d{{2}}\b",
        f"{MONTH_WORDS} 0",
        flags=_I,
    ),
    _shape("AGE", r"\b(?:9\d|1[01]\d)(?:[- ]?(?:years?|yrs?|y/?o)(?:[- ]old)?\b|[ ]?-?yo\b)", "0", flags=_I),
    _shape(
        "LOCATION",
        rf"\b\d{{1,5}}[ ]++(?:[A-Z][\w'’.-]*[ ]++){{1,3}}(?i:{STREET})\b"
        r"(?:\.?,?[ ]++(?:Apt|Unit|Suite|Flat)\.?[ ]?\w+)?",
        "0",
    ),
    _shape("LOCATION", r"\b[A-Z]{2}[ ]++\d{5}(?:-\d{4})?\b|\b[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}\b", "A"),
    _shape(
        "HOSPITAL",
        rf"\b(?:(?:St\.|Saint|Mount|Mt\.)[ ]++)?(?:[A-Z][\w'’-]{{1,40}}[ ]++){{1,3}}{FACILITY}\b",
        "A",
        needs=("Hospital", "Cent", "Clinic", "Infirmary", "Hospice", "Home"),
    ),
    _shape(
        "NAME",
        rf"\b(?:{TITLE}|Nurse|Doctor|Professor|Rev|Sr|Sra)\.?[ ]++(?P<value>{NAMES})",
        f"{TITLE_WORDS} nurse doctor professor rev sr sra",
    ),
    _shape(
        "NAME",
        rf"\b(?:mister|missus|misses|mrs\.?|mr\.)[ ]++{NO_LOWER_NAME}(?P<value>[a-z][a-z'’-]++)(?!\w)",
        "mister missus misses mrs mr",
    ),
    _shape(
        "NAME",
        rf"\b(?:MISTER|MISSUS|MRS\.?|MR\.|DR\.?)[ ]++{NO_LOWER_NAME}(?P<value>[A-Z][A-Z'’-]++)(?!\w)",
        "mister missus mrs mr dr",
    ),
    _shape(
        "NAME",
        rf"(?<![{UPPER}{LOWER}])(?P<value>{CAPITAL_NAMES}),?[ ]++{DEGREE}\b\.?",
        "A",
        needs=("MD", "M.D", "RN", "R.N", "DO", "D.O", "NP", "N.P", "PA", "P.A", "Ph", "MB", "M.B", "FRCP"),
    ),
    _shape(
        "NAME",
        rf"^[ \t]*+(?i:{LABEL})[ \t]*+:[ \t]*+(?P<value>{NAMES}(?:,[ ]*{NAMES})?)",
        flags=re.MULTILINE,
        needs=(":",),
    ),
    _shape(
        "NAME",
        rf"^[ \t]*+(?i:patient)[ \t]*+:[ \t]*+{NO_ANSWER}(?P<value>{NAMES}(?:,[ ]*{NAMES})?)"
        rf"(?![{LOWER}{UPPER}.?!])(?={AFTER_HEADING})",
        flags=re.MULTILINE,
        needs=(":",),
    ),
    _shape("NAME", rf"\b(?i:{KIN}),?[ ]++(?P<value>{NAMES})", KIN_WORDS),
    _shape("NAME", rf"(?i:\b{BEFORE_NAME}):?[ ]++{NO_NAME}(?P<value>{NAMES}(?:,[ ]*{NAME})?)", BEFORE_NAME_WORDS),
    _shape("NAME", rf"\b{NO_NAME}(?P<value>{CAPITAL_NAMES})[ ]++(?:\((?i:{KIN})\)|{AFTER_NAME}\b)", "A"),
    _shape("NAME", rf"\b{TITLE}\.?[ ]++(?P<value>{LAST_FIRST})", TITLE_WORDS),
    _shape("NAME", rf"\b(?i:{KIN}),?[ ]++(?P<value>{LAST_FIRST})", KIN_WORDS),
    _shape("NAME", rf"\b(?:[A-Z]\.[ ]?){{1,4}}{NAME}", "A"),  # J. Okafor
    _shape("DATE", rf"(?<![\w/.-]){MONTH}-\d{{1,2}}-(?:(?:19|20)\d{{2}}|\d{{2}})\b", MONTH_WORDS, flags=_I),
    _shape("DATE", rf"(?<![\w/.-])\d{{1,2}}[- ]{MONTH}[- ](?:(?:19|20)\d{{2}}|\d{{2}})\b", "0", flags=_I),
    _shape(
        "DATE",
        rf"\bthe \d{{1,2}}(?:st|nd|rd|th)(?: of {MONTH})\b|\b{MONTH} (?:of )?(?:last|this) year\b",
        f"the {MONTH_WORDS}",
        flags=_I,
    ),
    _shape(
        "DATE",
        r"\b(?:on|of|since|from|dated|until|by|colonoscopy|seen|date|admitted|discharged):?[ ]++"
        r"(?P<value>(?:0?[1-9]|1[0-2])/(?:[12]\d|3[01]|0?[1-9]|\d{2}))(?![\w/])",
        "on of since from dated until by colonoscopy seen date admitted discharged",
        flags=_I,
    ),
    _shape("DATE", WEEKDAY_DATE, WEEKDAY_WORDS, flags=_I),
    _shape("DATE", r"(?<![\w/.-])(?:0[1-9]|1[0-2])/(?:19|20)\d{2}(?![\w/])", "0"),
    _shape("PHONE", r"(?<![\w.-])0?\d{3}[ ]\d{7}(?![\w-])", "0"),
    _shape("PHONE", r"\b(?:ext\.?[ ]?|extension[ ]|x)\d{4,5}\b", "ext extension x", flags=_I),
    _shape(
        "PHONE",
        r"\b(?:call|phone|tel|fax|page|pager|at|ext|extension|beeper|bleep)\.?:?[ ]++(?P<value>x?\d{4,5})\b",
        "call phone tel fax page pager at ext extension beeper bleep",
        flags=_I,
    ),
    _shape("ID", r"(?<![\w.-])(?:[A-Z]{1,3})?\d{7,12}(?![\w-])", "A 0"),
    _shape("ID", r"(?<![\w.-])[A-Z]{1,2}\d{2}-\d{4,6}(?![\w-])", "A"),
    _shape(
        "ID",
        r"\b(?:specimen|case|sample|biopsy)[ ]++#?(?P<value>[A-Z]{1,2}\d{2}-\d{3,6})\b",
        "specimen case sample biopsy",
        flags=_I,
    ),
    _shape("AGE", SPELLED_AGE, "ninety a one", flags=_I),
    _shape(
        "AGE",
        r"\b(?:a|an|aged?|is|of|was)[ ]++(?P<value>(?:9\d|1[01]\d))(?![\d/.%]| ?(?:mg|ml|kg|cm|bpm|percent))\b",
        "a an age aged is of was",
    ),
    _shape(
        "LOCATION",
        rf"\b(?i:(?:lives?|living|resides|residing|born|home)(?: alone)? (?:in|at)|originally from|"
        rf"moved (?:to|from))"
        rf"[ ]++(?P<value>{NAMES}(?:,[ ]*[A-Z]{{2}}(?:[ ]++\d{{5}})?)?)",
        "live lives living resides residing born home originally moved",
    ),
    _shape("LOCATION", rf"\b{CAPITAL_NAME}(?:[ ]{NAME})?,[ ]*+[A-Z]{{2}}[ ]++\d{{5}}\b", "A"),
    _shape(
        "HOSPITAL",
        rf"\b{PLACE_VERB} (?:in|at|to|from|by)[ ]++(?P<value>(?:the[ ]++)?{NO_NAME}(?:St\.[ ]?|Saint[ ])?"
        rf"(?:[A-Z][\w'’]*)(?:[ ]+[A-Z][\w'’]*){{0,3}})",
        "transferred admitted discharged referred removed seen treated worked works followed performed",
    ),
    _shape(
        "HOSPITAL",
        r"\bSt\.?[ ][A-Z][a-z]+['’]s\b|\b[A-Z][a-z]+ (?:General|Memorial|Practice|Surgery Center)\b",
        "A",
        needs=("St.", "St ", " General", " Memorial", " Practice", " Surgery Center"),
    ),
    _shape(
        "HOSPITAL",
        r"\bthe[ ](?:[A-Z][\w'’-]{1,40}[ ]){1,3}(?:nursing home|care home|clinic|hospital|rehab)\b",
        "the",
    ),
)
_WORDS: dict[str, list[str]] = {}  # word -> the `begins` that list it; _BEGINNINGS: the same for beginnings
_BEGINNINGS: dict[str, list[str]] = {}
for _begins in {shape.begins for shape in SHAPES}:
    for _token in _begins.split():
        if _token not in ("A", "0", "+0"):
            _table = _BEGINNINGS if _token.endswith("*") else _WORDS
            _table.setdefault(_token.rstrip("*"), []).append(_begins)
