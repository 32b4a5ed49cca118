"""Removes citation markers from running text: all numbers, and author and year if they are only in brackets.

A JATS reader writes NUMBER for a numbered marker and wraps a marker of author and year in AUTHOR_START and AUTHOR_END.
`without_citations` removes both, joins no two words, and leaves no empty bracket.
"""

from __future__ import annotations

import re

NUMBER, AUTHOR_START, AUTHOR_END = "\ue000", "\ue001", "\ue002"  # of Unicode's private use area
_MARK = f"(?:{NUMBER}|{AUTHOR_START}[^{AUTHOR_END}]*{AUTHOR_END})"
_LEAD = r"(?:(?:for (?:a )?reviews?|reviewed (?:in|by)|see(?: also)?|e\.\s?g\.|i\.\s?e\.|cf\.|refs?\.?)[\s,:;]*)*"
_BETWEEN = r"(?:[\s,;–—−‐‑-]|\band\b|&)*"
_BRACKET = re.compile(rf"(?<!\s)\s*+[\(\[]\s*+{_LEAD}{_MARK}(?:{_BETWEEN}{_LEAD}{_MARK})*[\s,;.]*[\)\]]", re.IGNORECASE)
_RUN = re.compile(rf"(?<!\s)\s*+(?:[,;]\s*+)?{NUMBER}(?:[\s,;–—−‐‑-]*+{NUMBER})*+(?P<closing>\s*+[\)\]])?")
_OPENED = re.compile(r"(?<=[(\[])\s*[,;]\s*")  # of "[3, page 5]"
_STOPS = re.compile(r"(?<=\bal\.)\.(?!\.)")  # of "et al. [3]."
_SPACES = re.compile(r"[ \u00a0]{2,}")


def without_citations(text: str) -> str:
    """The text without its markers, single-spaced; an author named in the sentence itself remains."""
    if NUMBER in text or AUTHOR_START in text:
        text = _BRACKET.sub(lambda match: _replacement(match, ""), text)
        text = _RUN.sub(_run, text)
        text = _OPENED.sub("", _STOPS.sub("", text.replace(AUTHOR_START, "").replace(AUTHOR_END, "")))
    return _SPACES.sub(" ", text).strip()


def _run(match: re.Match[str]) -> str:
    if match["closing"]:
        return match["closing"].strip()
    comma = "," if re.match(r"\s*,", match[0]) and match.string[match.end() : match.end() + 1] == " " else ""
    return _replacement(match, comma)


def _replacement(match: re.Match[str], comma: str) -> str:
    """The replacement for a marker: a space if two words would otherwise be joined."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return comma + (" " if before.isalnum() and after.isalnum() and not comma else "")
