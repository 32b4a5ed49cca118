"""Tags of tokens as spans: IOB, IOB2, IO, IOBES, BILOU and BMES; the text is the tokens, joined by one blank."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lora_med.data.record import Span

TAG = re.compile(r"O|(?P<prefix>[BIMELSUW])-(?P<type>\S(?:.*\S)?)")
INSIDE = {"M": "I", "L": "E", "U": "S", "W": "S"}  # the letters of BILOU and BMES, as those of IOBES


class UnknownTag(Exception):
    """A tag of none of the schemes; `index` is its position."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


def is_tag(text: str) -> bool:
    """Whether a text is O, or a prefix and a type."""
    return TAG.fullmatch(text) is not None


def tagged_text(tokens: Sequence[str], tags: Sequence[str], *, no_prefix: bool = False) -> tuple[str, tuple[Span, ...]]:
    """The text of the tokens, and the spans that their tags mark.

    A tag inside a mention that no tag begins, begins one. `no_prefix`: each tag but O is a type as it is.

    Raises:
        UnknownTag: a tag of none of the schemes.
    """
    text = " ".join(tokens)
    spans: list[Span] = []
    begin, end, kind = 0, -1, ""  # the open mention, if kind is not empty
    offset = 0
    for index, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
        prefix, tag_type = _parts(tag, index, no_prefix)
        if kind and (prefix in "OBS" or tag_type != kind):
            spans.append(Span(begin, end, kind, text[begin:end]))
            kind = ""
        if tag_type and not kind:
            begin, kind = offset, tag_type
        end = offset + len(token)
        if kind and prefix in "ES":
            spans.append(Span(begin, end, kind, text[begin:end]))
            kind = ""
        offset = end + 1
    if kind:
        spans.append(Span(begin, end, kind, text[begin:end]))
    return text, tuple(spans)


def _parts(tag: str, index: int, no_prefix: bool) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    if no_prefix and tag.strip():
        return "I", tag.strip()
    match = TAG.fullmatch(tag)
    if match is None:
        raise UnknownTag(index)
    return INSIDE.get(match["prefix"], match["prefix"]), match["type"]
