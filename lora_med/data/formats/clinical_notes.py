"""Clinical notes as passages: headings become section labels, line breaks are normalized, other text is unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lora_med.data.formats.row_fields import Wrong
from lora_med.data.record import Passage, Section

HEADING = re.compile(r"^[ \t]*([A-Z][A-Za-z0-9 /&,'()-]{1,58}[A-Za-z)]):", re.MULTILINE)
MOST_WORDS = 6


def note(uid: str, patient: str, source: str, kind: str, text: str) -> Passage:
    """A note as a passage: `patient` is its group, `kind` its title.

    Raises:
        Wrong: it has no text.
    """
    text = re.sub(r"\n{3,}", "\n\n", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if not text:
        raise Wrong("expected a text, it is empty")
    return Passage(uid, patient, source, text, " ".join(kind.split()), tuple(sections(text)))


def sections(text: str) -> Iterator[Section]:
    """The sections under headings such as `Hospital Course:` at the start of a line, in order, none empty.

    The text before the first heading has no label.
    """
    headings = [match for match in HEADING.finditer(text) if len(match[1].split()) <= MOST_WORDS]
    starts = [0, *(match.start() for match in headings), len(text)]
    labels: list[str | None] = [None, *(match[1].strip() for match in headings)]
    for index, label in enumerate(labels):
        body = text[starts[index] : starts[index + 1]].strip()
        body = body.removeprefix(f"{label}:").strip() if label else body
        if body:
            yield Section(body, label)
