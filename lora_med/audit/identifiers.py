"""Possible identifiers of persons, found by shape: dates, numbers, addresses, names with a title. No guarantee.

Patterns find shapes; a bare surname in running text has none. A match is reported as type and offsets, and its text is
never logged. The types are the tags of data/formats/placeholders.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lora_med.data.formats.placeholders import TAG
from lora_med.data.record import Record, texts_of

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
_NAME_WORD = re.compile(r"[A-Z][\w'’-]{3,}")
PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("EMAIL", re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b")),
    ("URL", re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]+", re.IGNORECASE)),
    (
        "PHONE",
        re.compile(
            r"(?<![\w.-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,5}\)[ .-]?|\d{2,5}[ .-])\d{3,4}[ .-]\d{3,4}"
            r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,5})?(?![\w-])|(?<![\w.-])\d{3}-\d{4}(?![\w-])",
            re.IGNORECASE,
        ),
    ),
    ("ID", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")),
    (
        "ID",
        re.compile(
            rf"\b{_NUMBERED}\s*[:#.]?\s*(?P<value>(?=[\w-]*\d)[A-Z\d][\w-]{{3,}})",
            re.IGNORECASE,
        ),
    ),
    (
        "DATE",
        re.compile(r"(?<![\w/.-])(?:19|20)\d{2}[-/.](?:0?[1-9]|1[0-2])[-/.](?:[12]\d|3[01]|0?[1-9])(?!(?!T\d)[\w/])"),
    ),
    (
        "DATE",
        re.compile(
            r"(?<![\w/.-])(?:[12]?\d|3[01]|0[1-9])[-/.](?:[12]?\d|3[01]|0[1-9])[-/.](?:(?:19|20)\d{2}|\d{2})(?![\w/])"
        ),
    ),
    (
        "DATE",
        re.compile(
            rf"\b{_MONTH}\.?[ ]+\d{{1,2}}(?:st|nd|rd|th)?(?:,?[ ]+(?:19|20)\d{{2}})?\b|"
            rf"\b\d{{1,2}}(?:st|nd|rd|th)?(?:[ -]+of)?[ -]+{_MONTH}\b\.?(?:,?[ -]+(?:19|20)\d{{2}})?|"
            rf"\b{_MONTH}\.?,?[ ]+(?:19|20)\d{{2}}\b",
            re.IGNORECASE,
        ),
    ),
    ("AGE", re.compile(r"\b(?:9\d|1[01]\d)(?:[- ]?(?:years?|yrs?|y/?o)(?:[- ]old)?\b|[ ]?-?yo\b)", re.IGNORECASE)),
    (
        "LOCATION",
        re.compile(
            rf"\b\d{{1,5}}[ ]+(?:[A-Z][\w'’.-]*[ ]+){{1,3}}(?i:{_STREET})\b"
            r"(?:\.?,?[ ]+(?:Apt|Unit|Suite|Flat)\.?[ ]?\w+)?"
        ),
    ),
    ("LOCATION", re.compile(r"\b[A-Z]{2}[ ]+\d{5}(?:-\d{4})?\b|\b[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}\b")),
    (
        "HOSPITAL",
        re.compile(
            r"\b(?:(?:St\.|Saint|Mount|Mt\.)[ ]+)?(?:[A-Z][\w'’-]{1,40}[ ]+){1,3}"
            r"(?:Hospital|Medical Center|Medical Centre|Clinic|Infirmary|Hospice|Nursing Home|Rehabilitation Center)\b"
        ),
    ),
    ("NAME", re.compile(rf"\b(?:Dr|Mr|Mrs|Ms|Miss|Prof|Nurse|Doctor|Professor|Rev|Sr|Sra)\.?[ ]+(?P<value>{_NAMES})")),
    (
        "NAME",
        re.compile(
            rf"(?<![A-Za-z])(?P<value>{_NAMES}),?[ ]+(?:M\.?D|R\.?N|D\.?O|N\.?P|P\.?A|Ph\.?D|M\.?B\.?B\.?S|FRCP)\b\.?"
        ),
    ),
    ("NAME", re.compile(rf"^[ \t]*(?i:{_LABEL})[ \t]*:[ \t]*(?P<value>{_NAMES}(?:,[ ]*{_NAMES})?)", re.MULTILINE)),
    (
        "NAME",
        re.compile(rf"\b(?i:{_KIN}),?[ ]+(?P<value>{_NAMES})"),
    ),
    ("NAME", re.compile(rf"(?i:\b{_BEFORE_NAME}):?[ ]+{_NO_NAME}(?P<value>{_NAMES}(?:,[ ]*{_NAME})?)")),
    ("NAME", re.compile(rf"\b{_NO_NAME}(?P<value>{_NAMES})[ ]+(?:\((?i:{_KIN})\)|{_AFTER_NAME}\b)")),
    ("NAME", re.compile(rf"\b(?:Dr|Mr|Mrs|Ms|Miss|Prof)\.?[ ]+(?P<value>{_LAST_FIRST})")),
    ("NAME", re.compile(rf"\b(?i:{_KIN}),?[ ]+(?P<value>{_LAST_FIRST})")),
    ("NAME", re.compile(rf"\b(?:[A-Z]\.[ ]?){{1,4}}{_NAME}")),  # J. Okafor
    ("DATE", re.compile(rf"(?<![\w/.-]){_MONTH}-\d{{1,2}}-(?:(?:19|20)\d{{2}}|\d{{2}})\b", re.IGNORECASE)),
    ("DATE", re.compile(rf"(?<![\w/.-])\d{{1,2}}[- ]{_MONTH}[- ](?:(?:19|20)\d{{2}}|\d{{2}})\b", re.IGNORECASE)),
    (
        "DATE",
        re.compile(rf"\bthe \d{{1,2}}(?:st|nd|rd|th)(?: of {_MONTH})\b|\b{_MONTH} (?:of )?(?:last|this) year\b", re.I),
    ),
    (
        "DATE",
        re.compile(
            r"\b(?:on|of|since|from|dated|until|by|colonoscopy|seen|date|admitted|discharged):?[ ]+"
            r"(?P<value>(?:0?[1-9]|1[0-2])/(?:[12]\d|3[01]|0?[1-9]|\d{2}))(?![\w/])",
            re.IGNORECASE,
        ),
    ),
    (
        "PHONE",
        re.compile(r"\b(?:call|phone|tel|fax|page|pager|at|ext|extension|beeper)\.?:?[ ]+(?P<value>x?\d{4,5})\b", re.I),
    ),
    ("ID", re.compile(r"(?<![\w.-])(?:[A-Z]{1,3})?\d{7,12}(?![\w-])")),
    ("ID", re.compile(r"\b(?:specimen|case|sample|biopsy)[ ]+#?(?P<value>[A-Z]{1,2}\d{2}-\d{3,6})\b", re.IGNORECASE)),
    (
        "AGE",
        re.compile(
            r"\b(?:a|an|aged?|is|of|was)[ ]+(?P<value>(?:9\d|1[01]\d))(?![\d/.%]| ?(?:mg|ml|kg|cm|bpm|percent))\b"
        ),
    ),
    (
        "LOCATION",
        re.compile(
            rf"\b(?i:(?:lives?|living|resides|residing|born|home)(?: alone)? (?:in|at)|originally from|"
            rf"moved (?:to|from))"
            rf"[ ]+(?P<value>{_NAMES}(?:,[ ]*[A-Z]{{2}}(?:[ ]+\d{{5}})?)?)"
        ),
    ),
    ("LOCATION", re.compile(rf"\b{_NAME}(?:[ ]{_NAME})?,[ ]*[A-Z]{{2}}[ ]+\d{{5}}\b")),
    (
        "HOSPITAL",
        re.compile(
            rf"\b{_PLACE_VERB} (?:in|at|to|from|by)[ ]+(?P<value>(?:the[ ]+)?{_NO_NAME}(?:St\.[ ]?|Saint[ ])?"
            rf"(?:[A-Z][\w'’]*)(?:[ ]+[A-Z][\w'’]*){{0,3}})",
        ),
    ),
    (
        "HOSPITAL",
        re.compile(r"\bSt\.?[ ][A-Z][a-z]+['’]s\b|\b[A-Z][a-z]+ (?:General|Memorial|Practice|Surgery Center)\b"),
    ),
    (
        "HOSPITAL",
        re.compile(r"\bthe[ ](?:[A-Z][\w'’-]{1,40}[ ]){1,3}(?:nursing home|care home|clinic|hospital|rehab)\b"),
    ),
)


@dataclass(frozen=True, slots=True)
class Identifier:
    """A possible identifier: character offsets, end exclusive, and its type."""

    start: int
    end: int
    type: str


def find_identifiers(text: str) -> list[Identifier]:
    """The possible identifiers of a text, by offset; of two that overlap, the longer. Typed tags are excluded."""
    tags = [match.span() for match in TAG.finditer(text)]
    matches = [
        Identifier(*(match.span("value") if "value" in pattern.groupindex else match.span()), kind)
        for kind, pattern in PATTERNS
        for match in pattern.finditer(text)
    ]
    untagged = longest(
        each for each in matches if not any(each.start < end and start < each.end for start, end in tags)
    )
    return longest([*untagged, *_again(text, untagged)])


def _again(text: str, identifiers: Iterable[Identifier]) -> Iterator[Identifier]:
    """Other occurrences of the words of names that were found."""
    words = {
        word
        for identifier in identifiers
        if identifier.type == "NAME"
        for word in _NAME_WORD.findall(text[identifier.start : identifier.end])
    }
    if words:
        pattern = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
        for match in re.finditer(rf"(?<![\w'’-])(?:{pattern})(?![\w-])", text):
            yield Identifier(match.start(), match.end(), "NAME")


def longest(identifiers: Iterable[Identifier]) -> list[Identifier]:
    """The identifiers that do not overlap a longer one, in the order of the text."""
    retained: list[Identifier] = []
    for identifier in sorted(identifiers, key=lambda identifier: (identifier.start - identifier.end, identifier.start)):
        if all(identifier.end <= other.start or other.end <= identifier.start for other in retained):
            retained.append(identifier)
    return sorted(retained, key=lambda identifier: identifier.start)


def scan(records: Iterable[Record]) -> Iterator[tuple[str, Counter[str]]]:
    """For each record with possible identifiers: its uid, and the count of each type."""
    for record in records:
        counts = Counter(identifier.type for text in texts_of(record) for identifier in find_identifiers(text))
        if counts:
            yield record.uid, counts
