"""Columns that are named like a patient: who they are about, so what must not be in two splits."""

from __future__ import annotations

import re
from itertools import pairwise

NUMBER = r"(?:s|id|ids|no|nr|num|number|key|code|uid|uuid|guid|identifier|name|ref|index|idx|hash|pseudonym)?"
BEFORE = r"(?:the|study|src|source|anon|deid|hashed|icu|hospital|unique)?"
WORD = re.compile(rf"{BEFORE}(?:patient|subject|mrn|pid|person|case|encounter|hadm|stay|empi){NUMBER}")
# Long words count inside a word too, as in `hashedpatientnumber`; not what only contains them.
INSIDE = re.compile(r"patient|pacient|pazient|encounter|hadm|subject(?!iv)|person(?!al|nel)")
NOT_A_PATIENT = re.compile(r"(?:in|out|im)patients?")
PAIRS = {
    (word, number)
    for word in ("pat", "pt", "admission", "adm", "visit", "participant", "record", "individual")
    for number in ("id", "no", "nr", "num", "number", "key", "uid")
} | {("medical", "record")}


def is_named_like_a_patient(column: str) -> bool:
    """Whether a column's name has the word of a patient, a stay or a case in it: `PatientID`, `study_subject_no`."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", column).casefold()
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", parts)]
    if any(pair in PAIRS for pair in pairwise(words)) or "".join(words) in ("patid", "ptid"):
        return True
    return any(
        not NOT_A_PATIENT.fullmatch(word) and (WORD.fullmatch(word) or INSIDE.search(word)) is not None
        for word in words
    )


def holds_text(value: object) -> bool:
    """Whether a value is a text of several words, as a case report is and an identifier is not."""
    return isinstance(value, str) and len(value.split()) > 4
