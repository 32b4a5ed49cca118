"""Tasks from one structured passage: its conclusion, its title, its section labels, a trial's eligibility criteria."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from lora_med.data.record import Passage, Section
from lora_med.prompts.row import Row, prompted

CONCLUDES = re.compile(r"conclusions?|interpretation|conclusions? and .*", re.IGNORECASE)
LABELS = ("BACKGROUND", "OBJECTIVE", "METHODS", "RESULTS", "CONCLUSIONS")
INCLUDED = re.compile(r"^[^\w\n]*+(?:key )?inclusion criteria\b(?:[^\n:]*+(?::[ \t]*+)?$|:)", re.I | re.M)
EXCLUDED = re.compile(r"^[^\w\n]*+(?:key )?exclusion criteria\b(?:[^\n:]*+(?::[ \t]*+)?$|:)", re.I | re.M)
ITEM = re.compile(r"^[ \t]*(?:[*-]|\d{1,2}[.)])[ \t]+", re.MULTILINE)


def _concludes(section: Section) -> bool:
    return section.category == "CONCLUSIONS" or bool(section.label and CONCLUDES.fullmatch(section.label))


def _lines(sections: Sequence[Section]) -> str:
    return "\n".join(f"{part.label}: {part.text}" if part.label else part.text for part in sections)


def has_conclusion(record: Passage) -> bool:
    """Whether the last section is a conclusion and the first is not."""
    return len(record.sections) > 1 and _concludes(record.sections[-1]) and not _concludes(record.sections[0])


def conclusion(record: Passage) -> Row:
    """Title and the sections before the conclusion, then the conclusion."""
    first = next(index for index, section in enumerate(record.sections) if _concludes(section))
    before = f"Title: {record.title}\nAbstract: " if record.title else "Abstract: "
    context = _lines(record.sections[:first])
    answer = "\n".join(section.text for section in record.sections[first:])
    return prompted(
        record,
        f"{before}{context}\nConclusion:",
        f" {answer}",
        (len(before), len(before) + len(context)),
    )


def has_title(record: Passage) -> bool:
    """Whether there are a title and a text."""
    return bool(record.title and record.text)


def title(record: Passage) -> Row:
    """The text, then its title."""
    before = "Abstract: "
    return prompted(
        record, f"{before}{record.text}\nTitle:", f" {record.title}", (len(before), len(before + record.text))
    )


def has_labels(record: Passage) -> bool:
    """Whether there are two sections or more and each has one of the five categories of structured abstracts."""
    return len(record.sections) > 1 and all(part.category in LABELS for part in record.sections)


def sections(record: Passage) -> Row:
    """The numbered sections without their labels, then one label on each line."""
    numbered = "\n".join(f"[{number}] {part.text}" for number, part in enumerate(record.sections, 1))
    labels = "\n".join(f"[{number}] {part.category}" for number, part in enumerate(record.sections, 1))
    return prompted(record, f"Label each part {', '.join(LABELS[:-1])} or {LABELS[-1]}.\n{numbered}\nLabels:\n", labels)


def has_eligibility(record: Passage) -> bool:
    """Whether there are eligibility criteria of which at least one is listed."""
    text = _of(record, "ELIGIBILITY")
    return bool(text) and any(criteria(text))


def eligibility(record: Passage) -> Row:
    """A trial's eligibility criteria as written, then the same as one line of JSON."""
    inclusion, exclusion = criteria(_of(record, "ELIGIBILITY"))
    values = {
        "inclusion": inclusion,
        "exclusion": exclusion,
        "sex": _of(record, "SEX") or None,
        "minimum_age": _of(record, "MINIMUM_AGE") or None,
        "maximum_age": _of(record, "MAXIMUM_AGE") or None,
    }
    lines = [f"Eligibility: {_of(record, 'ELIGIBILITY')}"]
    lines += [
        f"{section.label}: {section.text}"
        for section in record.sections
        if section.category in ("SEX", "MINIMUM_AGE", "MAXIMUM_AGE")
    ]
    return prompted(record, "\n".join(lines) + "\nJSON:", f" {json.dumps(values, ensure_ascii=False)}")


def criteria(text: str) -> tuple[list[str], list[str]]:
    """The inclusion and the exclusion criteria of a trial's free text, one item each, without bullets.

    Text before both headings belongs to neither; the lines below an item belong to it.
    """
    start, end = _heading(INCLUDED, text), _heading(EXCLUDED, text)
    inclusion = text[start[1] : end[0] if end and end[0] > start[1] else None] if start else ""
    exclusion = text[end[1] : start[0] if start and start[0] > end[1] else None] if end else ""
    return _items(inclusion), _items(exclusion)


def _heading(pattern: re.Pattern[str], text: str) -> tuple[int, int] | None:
    """The range of the first heading, with the lines before it that hold no word."""
    match = pattern.search(text)
    if match is None:
        return None
    start = offset = match.start()
    while offset and not (text[offset - 1].isalnum() or text[offset - 1] == "_"):
        offset -= 1
        if not offset or text[offset - 1] == "\n":
            start = offset
    return start, match.end()


def _items(text: str) -> list[str]:
    starts = [match for match in ITEM.finditer(text) if not text.startswith(("  ", "\t"), match.start())]
    if not starts:
        return [" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip()]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return [" ".join(text[match.end() : end].split()) for match, end in zip(starts, ends, strict=True)]


def _of(record: Passage, category: str) -> str:
    return next((part.text for part in record.sections if part.category == category), "")
