"""PYTHONHASHSEED=0 python -m tools.deid.make_training OUT.jsonl: write the notes that the tagger is trained on.

The wordings of training_wordings.txt are filled many times with names that the test does not have, between sentences
without identifiers. Some notes are in small letters, in capitals, or spaced as a transcript. A note has wordings of one
group: the validation part has wordings that training has not. The notes are about equally long, which wastes little on
padding. Needs Faker 40.63.0.
"""

from __future__ import annotations

import csv
import gzip
import html
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.deid.make_test import SLOT, filled
from tools.deid.slot_values import Values

FOLDER = Path(__file__).parent
SEED, NOTES, GROUPS, LEAST_LETTERS = 11, 2400, 20, 280
PLAIN, LOWER, UPPER, SPACED = 0.15, 0.12, 0.10, 0.10  # shares of notes
FORMS = {
    "NAME": ("full", "full", "full", "last", "first", "title", "comma", "initials", "initials", "hyphen", "upper"),
    "DATE": ("slash", "long", "dayfirst", "short", "iso", "dotted", "weekday", "stamp", "monthyear", "daymonth"),
    "PHONE": ("dotted", "paren", "plain", "plain", "intl"),
    "ID": ("number", "dashed", "accession", "split"),
    "HOSPITAL": ("name", "name", "short"),
}
CHOICE = re.compile(r"<([^<>]*\|[^<>]*)>")
OPEN_FORM = re.compile(r"\[\[([A-Z]+) \?")


ASSETS = FOLDER.parents[1] / "lora_med" / "assets"
SENTENCE = re.compile(r"(?<=[.?!])\s+")


def plain_texts() -> list[str]:
    """Texts without an identifier: traps, lists of terms, and pieces of the dialogues and abstracts of the sample."""
    rng = random.Random(SEED)
    traps = (FOLDER / "plain_sentences.txt").read_text(encoding="utf-8").splitlines()
    terms = (ASSETS / "terms" / "medical.txt").read_text(encoding="utf-8").splitlines()
    words = " ".join((ASSETS / "terms" / "notes.txt").read_text(encoding="utf-8").splitlines()).split()
    lists = []
    for _ in range(300):
        drawn = rng.sample(terms, rng.randint(1, 3))
        form = rng.choice((str.title, str.capitalize, str.upper, str.lower))
        verb = form(" ".join(rng.sample(words, rng.randint(1, 2))))
        lists.append(f"{verb} {rng.choice((', ', ' and ', '; ')).join(form(term) for term in drawn)}.")
    with (ASSETS / "sample" / "dialogues_sample.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    turns = [row["dialogue"].split("\n") for row in rows]
    pieces = ["\n".join(lines[start : start + 3]) for lines in turns for start in range(0, len(lines), 3)]
    pieces += [part for row in rows for part in SENTENCE.split(row["section_text"])]
    archive = ASSETS / "sample" / "pubmed_sample.xml.gz"
    abstracts = re.findall(r"<AbstractText[^>]*>([^<]{40,})", gzip.decompress(archive.read_bytes()).decode("utf-8"))
    pieces += [html.unescape(rng.choice(SENTENCE.split(abstract))) for abstract in abstracts]
    return [*traps * 4, *lists, *rng.sample(pieces, 500)]


def wordings() -> list[str]:
    """The wordings, without the line that names their kind."""
    blocks = (FOLDER / "training_wordings.txt").read_text(encoding="utf-8").split("%% ")[1:]
    return [block.partition("\n")[2].strip() for block in blocks]


def chosen(wording: str, rng: random.Random) -> str:
    """The wording with one of each group of alternatives, and a form for each slot without one."""
    one = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), wording)
    return OPEN_FORM.sub(lambda match: f"[[{match[1]} {rng.choice(FORMS[match[1]])}", one)


def as_transcript(wording: str) -> str:
    """The wording in small letters, with a blank before each mark, as speech recognition writes it; slots stay."""
    parts = re.split(rf"({SLOT.pattern.replace('(', '(?:')})".replace("(?:?:", "(?:"), wording)
    return "".join(
        part if part.startswith("[[") else re.sub(r" *([.,?!])(?=\s|$)", r" \1", part.lower()) for part in parts
    )


def same_length(text: str, change: str) -> str:
    """The text in small letters or capitals; a character whose other form is longer stays."""
    forms = (getattr(character, change)() for character in text)
    return "".join(form if len(form) == 1 else old for form, old in zip(forms, text, strict=True))


def _note(group: list[str], plain: list[str], values: Values, rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    """One filled note of the wordings of a group, and its spans."""
    parts: list[str] = []
    while sum(map(len, parts)) < LEAST_LETTERS:
        parts += rng.sample(plain, rng.choice((0, 0, 1, 1, 2)))
        parts.append(rng.choice(plain) if rng.random() < PLAIN else chosen(rng.choice(group), rng))
    text = rng.choice(("\n", "\n", " ")).join(parts)
    share = rng.random()
    if share < SPACED:
        text = as_transcript(text)
    text, spans = filled(text, values)
    if share < SPACED + LOWER:
        text = same_length(text, "lower")
    elif share < SPACED + LOWER + UPPER:
        text = same_length(text, "upper")
    return text, spans


def rows() -> Iterator[dict[str, Any]]:
    """The training notes in a mixed order, as rows with spans."""
    rng, values, plain = random.Random(SEED), Values(SEED, of_test=False), plain_texts()
    shuffled = rng.sample(wordings(), k=len(wordings()))
    order = list(range(GROUPS)) * (NOTES // GROUPS)
    rng.shuffle(order)
    for count, number in enumerate(order):
        text, marked = _note(shuffled[number::GROUPS], plain, values, rng)
        spans = [{"start": span["start"], "end": span["end"], "type": span["type"]} for span in marked]
        yield {"uid": f"training:{count}", "group": f"wordings:{number}", "text": text, "spans": spans}


def main() -> None:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
    Path(sys.argv[1]).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
