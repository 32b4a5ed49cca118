"""Typed tags that stand where an identifier was: `[NAME]`, `[DATE]`. They are shown to a model and never trained.

MIMIC-III marks what was taken out with `[**...**]` and a made-up value or a description; MIMIC-IV-Note with `___`. Both
become tags, as does what `lora-med data deidentify` finds (numbered, `[NAME-2]`), so that no model learns to write
invented names and dates.
"""

from __future__ import annotations

import re

TAGS = ("NAME", "DATE", "AGE", "PHONE", "EMAIL", "URL", "ID", "HOSPITAL", "LOCATION", "REDACTED")
TAG = re.compile(r"\[(?:{})(?:-\d+)?\]".format("|".join(TAGS)))
TAG_WITH_SPACE = re.compile(rf" ?{TAG.pattern}")
_MIMIC3 = re.compile(r"\[\*\*(.*?)\*\*\]", re.DOTALL)
_MIMIC4 = re.compile(r"(?<!_)_{3}(?!_)")
# What a description of MIMIC-III says, in the order it is asked; a bare number or date says nothing else.
_MEANINGS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (tag, re.compile(pattern, re.IGNORECASE))
    for tag, pattern in (
        ("AGE", r"age over"),
        ("PHONE", r"telephone|phone|fax|pager|contact info"),
        ("EMAIL", r"e-?mail"),
        ("URL", r"url|web ?site"),
        ("ID", r"number|identifier|\bid\b|serial|medical record|social security|clip|job|device"),
        ("HOSPITAL", r"hospital|ward|\bunit\b|wardname|dept"),
        ("LOCATION", r"location|address|state|country|street|zip|city|town|county|university|college|po box|apartment"),
        ("NAME", r"name|initial|attending|doctor|company|holiday|dictator|author|religion"),
        ("DATE", r"date|day|month|year|january|february|march|april|may|june|july|august|september|october|november|"
                 r"december|^\s*[\d/ -]+\s*$"),
    )
)  # fmt: skip


def tagged_mimic3(text: str) -> str:
    """The text with each `[**...**]` made a typed tag; one that says nothing known is `[REDACTED]`."""
    return _MIMIC3.sub(lambda match: f"[{_meaning(match[1])}]", text)


def tagged_mimic4(text: str) -> str:
    """The text with each `___` made `[REDACTED]`; longer lines of underscores, which rule off sections, stay."""
    return _MIMIC4.sub("[REDACTED]", text)


def _meaning(description: str) -> str:
    return next((tag for tag, pattern in _MEANINGS if pattern.search(description)), "REDACTED")
