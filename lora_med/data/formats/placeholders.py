"""Typed tags that replace an identifier: `[NAME]`, `[DATE]`. A model sees them and is never trained on them.

MIMIC-III marks a removed identifier with `[**...**]` and a made-up value or a description; MIMIC-IV-Note uses `___`.
Both become tags, and so does each identifier that `lora-med data deidentify` finds (numbered, `[NAME-2]`). So no model
learns to write invented names and dates.
"""

from __future__ import annotations

import re

TAGS = ("NAME", "DATE", "AGE", "PHONE", "EMAIL", "URL", "ID", "HOSPITAL", "LOCATION", "REDACTED")
TAG = re.compile(r"\[(?:{})(?:-\d+)?\]".format("|".join(TAGS)))
TAG_WITH_SPACE = re.compile(rf" ?{TAG.pattern}")
_MIMIC3 = re.compile(r"\[\*\*(.*?)\*\*\]", re.DOTALL)
_MIMIC4 = re.compile(r"(?<!_)_{3}(?!_)")
# The tag for a description of MIMIC-III: the first pattern that matches. The last one matches a bare number or date.
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
                 r"december|^(?=\s*+$)[^ ]*+ |^\s*+[\d/-][\d/ -]*+\s*+$"),
    )
)  # fmt: skip


def tagged_mimic3(text: str) -> str:
    """The text with each `[**...**]` replaced by a typed tag; an unknown description becomes `[REDACTED]`."""
    last = text.rfind("**]") + 3  # behind it nothing is closed, and no opening is worth a search to the end
    return _MIMIC3.sub(lambda match: f"[{_meaning(match[1])}]", text[:last]) + text[last:] if last > 2 else text


def tagged_mimic4(text: str) -> str:
    """The text with each `___` replaced by `[REDACTED]`; longer lines of underscores, which separate sections, stay."""
    return _MIMIC4.sub("[REDACTED]", text)


def _meaning(description: str) -> str:
    return next((tag for tag, pattern in _MEANINGS if pattern.search(description)), "REDACTED")
