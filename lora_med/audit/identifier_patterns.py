"""The shapes of possible identifiers, each with the places where it can begin: only there is it tried.

Every pattern takes time linear in the text, whatever the text: where a match cannot go on, nothing that was read is
read again from many other places. Runs that a match may skip are possessive (`++`) or bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_NAME = r"(?:Mac|Mc|[OD]['’]|Al-|Van[ ]|De[ ])?[A-Z](?:[a-z]+(?:[-'’][A-Z][a-z]+){0,3}|[A-Z'’-]{1,30}[a-z]*)"
_LAST_FIRST = rf"{_NAME},[ ]*{_NAME}"
_NAMES = rf"{_NAME}(?:[ \t]+(?:[A-Z]\.[ \t]*)?{_NAME}){{0,2}}"
_LABEL = (
    r"(?:patient(?:'s)? name|patient|name|attending|dictated by|referring physician|signed(?: by)?|pcp|contact|"
    r"next of kin)"
)
_KIN = r"(?:husband|wife|son|daughter|mother|father|brother|sister|partner|friend|neighbou?r)"
_NUMBERED = (
    r"(?:mrn|npi|medical record(?: (?:number|no\.?|#))?|record (?:number|no\.?)|account(?: (?:number|no\.?|#))?|acct|"
    r"accession(?: (?:number|no\.?|#))?|ssn|nhs(?: (?:number|no\.?))?|policy(?: (?:number|no\.?|#))?|"
    r"license(?: (?:number|no\.?|#))?|device(?: serial)?(?: (?:number|no\.?))?|serial(?: (?:number|no\.?))?|"
    r"patient id|unit (?:number|no\.?)|case (?:number|no\.?|#))"
)
_STREET = r"(?:street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|way|place|pl|terrace|square|close)"
# Words before a name: an action with a person, or a role. Capitalized words that are no names are in _NO_NAME.
_BEFORE_NAME = (
    r"(?:seen by|brought in by|dictated by|attended by|ordered by|accompanied by|reviewed by|performed by|"
    r"spoke (?:with|to)|spoken to|discussed with|"
    r"(?:plan|care|results|findings|this)(?: was| were)?(?: agreed| discussed| shared)? with|follow[- ]?up with|"
    r"met with|cc|"
    r"called|contacted|informed|interpreter|signed|witnessed by|per|known to|lives with|named|under)"
)
_AFTER_NAME = (
    r"(?:reports?|states?|denies|says|said|asks|asked|complains|tolerated|presented|presents|returned|returns|feels|"
    r"agrees|agreed|was (?:seen|admitted|started|discharged|transferred|referred|present)|has been|"
    r"will (?:call|arrange|bring))"
)
_NO_NAME = (
    r"(?!(?:The|This|That|She|He|They|It|We|I|Patient|Pt|No|On|In|At|For|There|Denies|Reports|Doctor|Nurse|Family|"
    r"Mother|Father|Wife|Husband|Surgery|Cardiology|Neurology|Oncology|Radiology|Physical|Social|Home|Medicine|"
    r"Parkinson|Crohn|Hodgkin|Graves|Bell|Addison|Barrett|Marfan|Alzheimer|Glasgow|Foley|Babinski|Romberg|English|"
    r"Spanish|CT|MRI|ICU|ED|ER|IV|EKG|ECG|COPD|GI|OR|PT|OT)\b)"
)
_PLACE_VERB = r"(?:transferred|admitted|discharged|referred|removed|seen|treated|worked|works|followed|performed)"
_FACILITY = r"(?:Hospital|Medical Center|Medical Centre|Clinic|Infirmary|Hospice|Nursing Home|Rehabilitation Center)"
# The first words that each alternative of a pattern can begin with.
MONTH_WORDS = (
    "jan january feb february mar march apr april may jun june jul july aug august sep sept september oct october nov "
    "november dec december"
)
KIN_WORDS = "husband wife son daughter mother father brother sister partner friend neighbor neighbour"
TITLE_WORDS = "dr mr mrs ms miss prof"
NUMBERED_WORDS = "mrn npi medical record account acct accession ssn nhs policy license device serial patient unit case"
BEFORE_NAME_WORDS = (
    "seen brought dictated attended ordered accompanied reviewed performed spoke spoken discussed plan care results "
    "findings this follow followup met cc called contacted informed interpreter signed witnessed per known lives named "
    "under"
)
_SUBSTITUTES = str.maketrans(
    "\u0130\u0131\u017f\u212a", "iisk"
)  # patterns without regard to case take them for i, s, k
_SUBSTITUTE = re.compile("[\u0130\u0131\u017f\u212a]")
_CAPITAL = re.compile(r"(?<![A-Za-z])[A-Z]")
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
        rf"\b{_NUMBERED}\s*+(?:[:#.]\s*+)?(?P<value>(?=[\w-]{{0,99}}\d)[A-Z\d][\w-]{{3,}})",
        " ".join(dict.fromkeys(f"{word[:WORD_BEGINNING]}*" for word in NUMBERED_WORDS.split())),  # a value may follow
        flags=_I,
    ),
    _shape(
        "DATE",
        r"(?<![\w/.-])(?:19|20)\d{2}[-/.](?:0?[1-9]|1[0-2])[-/.](?:[12]\d|3[01]|0?[1-9])(?!(?!T\d)[\w/])",
        "0",
    ),
    _shape(
        "DATE",
        r"(?<![\w/.-])(?:[12]?\d|3[01]|0[1-9])[-/.](?:[12]?\d|3[01]|0[1-9])[-/.](?:(?:19|20)\d{2}|\d{2})(?![\w/])",
        "0",
    ),
    _shape(
        "DATE",
        rf"\b{_MONTH}\.?[ ]++\d{{1,2}}(?:st|nd|rd|th)?(?:,?[ ]++(?:19|20)\d{{2}})?\b|"
        rf"\b\d{{1,2}}(?:st|nd|rd|th)?(?:[ -]+of)?[ -]++{_MONTH}\b\.?(?:,?[ -]++(?:19|20)\d{{2}})?|"
        rf"\b{_MONTH}\.?,?[ ]++(?:19|20)\d{{2}}\b",
        f"{MONTH_WORDS} 0",
        flags=_I,
    ),
    _shape("AGE", r"\b(?:9\d|1[01]\d)(?:[- ]?(?:years?|yrs?|y/?o)(?:[- ]old)?\b|[ ]?-?yo\b)", "0", flags=_I),
    _shape(
        "LOCATION",
        rf"\b\d{{1,5}}[ ]++(?:[A-Z][\w'’.-]*[ ]++){{1,3}}(?i:{_STREET})\b"
        r"(?:\.?,?[ ]++(?:Apt|Unit|Suite|Flat)\.?[ ]?\w+)?",
        "0",
    ),
    _shape("LOCATION", r"\b[A-Z]{2}[ ]++\d{5}(?:-\d{4})?\b|\b[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}\b", "A"),
    _shape(
        "HOSPITAL",
        rf"\b(?:(?:St\.|Saint|Mount|Mt\.)[ ]++)?(?:[A-Z][\w'’-]{{1,40}}[ ]++){{1,3}}{_FACILITY}\b",
        "A",
        needs=("Hospital", "Medical Cent", "Clinic", "Infirmary", "Hospice", "Nursing Home", "Rehabilitation Center"),
    ),
    _shape(
        "NAME",
        rf"\b(?:Dr|Mr|Mrs|Ms|Miss|Prof|Nurse|Doctor|Professor|Rev|Sr|Sra)\.?[ ]++(?P<value>{_NAMES})",
        f"{TITLE_WORDS} nurse doctor professor rev sr sra",
    ),
    _shape(
        "NAME",
        rf"(?<![A-Za-z])(?P<value>{_NAMES}),?[ ]++(?:M\.?D|R\.?N|D\.?O|N\.?P|P\.?A|Ph\.?D|M\.?B\.?B\.?S|FRCP)\b\.?",
        "A",
        needs=("MD", "M.D", "RN", "R.N", "DO", "D.O", "NP", "N.P", "PA", "P.A", "Ph", "MB", "M.B", "FRCP"),
    ),
    _shape(
        "NAME",
        rf"^[ \t]*+(?i:{_LABEL})[ \t]*+:[ \t]*+(?P<value>{_NAMES}(?:,[ ]*{_NAMES})?)",
        flags=re.MULTILINE,
        needs=(":",),
    ),
    _shape("NAME", rf"\b(?i:{_KIN}),?[ ]++(?P<value>{_NAMES})", KIN_WORDS),
    _shape("NAME", rf"(?i:\b{_BEFORE_NAME}):?[ ]++{_NO_NAME}(?P<value>{_NAMES}(?:,[ ]*{_NAME})?)", BEFORE_NAME_WORDS),
    _shape("NAME", rf"\b{_NO_NAME}(?P<value>{_NAMES})[ ]++(?:\((?i:{_KIN})\)|{_AFTER_NAME}\b)", "A"),
    _shape("NAME", rf"\b(?:Dr|Mr|Mrs|Ms|Miss|Prof)\.?[ ]++(?P<value>{_LAST_FIRST})", TITLE_WORDS),
    _shape("NAME", rf"\b(?i:{_KIN}),?[ ]++(?P<value>{_LAST_FIRST})", KIN_WORDS),
    _shape("NAME", rf"\b(?:[A-Z]\.[ ]?){{1,4}}{_NAME}", "A"),  # J. Okafor
    _shape("DATE", rf"(?<![\w/.-]){_MONTH}-\d{{1,2}}-(?:(?:19|20)\d{{2}}|\d{{2}})\b", MONTH_WORDS, flags=_I),
    _shape("DATE", rf"(?<![\w/.-])\d{{1,2}}[- ]{_MONTH}[- ](?:(?:19|20)\d{{2}}|\d{{2}})\b", "0", flags=_I),
    _shape(
        "DATE",
        rf"\bthe \d{{1,2}}(?:st|nd|rd|th)(?: of {_MONTH})\b|\b{_MONTH} (?:of )?(?:last|this) year\b",
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
    _shape(
        "PHONE",
        r"\b(?:call|phone|tel|fax|page|pager|at|ext|extension|beeper)\.?:?[ ]++(?P<value>x?\d{4,5})\b",
        "call phone tel fax page pager at ext extension beeper",
        flags=_I,
    ),
    _shape("ID", r"(?<![\w.-])(?:[A-Z]{1,3})?\d{7,12}(?![\w-])", "A 0"),
    _shape(
        "ID",
        r"\b(?:specimen|case|sample|biopsy)[ ]++#?(?P<value>[A-Z]{1,2}\d{2}-\d{3,6})\b",
        "specimen case sample biopsy",
        flags=_I,
    ),
    _shape(
        "AGE",
        r"\b(?:a|an|aged?|is|of|was)[ ]++(?P<value>(?:9\d|1[01]\d))(?![\d/.%]| ?(?:mg|ml|kg|cm|bpm|percent))\b",
        "a an age aged is of was",
    ),
    _shape(
        "LOCATION",
        rf"\b(?i:(?:lives?|living|resides|residing|born|home)(?: alone)? (?:in|at)|originally from|"
        rf"moved (?:to|from))"
        rf"[ ]++(?P<value>{_NAMES}(?:,[ ]*[A-Z]{{2}}(?:[ ]++\d{{5}})?)?)",
        "live lives living resides residing born home originally moved",
    ),
    _shape("LOCATION", rf"\b{_NAME}(?:[ ]{_NAME})?,[ ]*+[A-Z]{{2}}[ ]++\d{{5}}\b", "A"),
    _shape(
        "HOSPITAL",
        rf"\b{_PLACE_VERB} (?:in|at|to|from|by)[ ]++(?P<value>(?:the[ ]++)?{_NO_NAME}(?:St\.[ ]?|Saint[ ])?"
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
