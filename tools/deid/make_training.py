"""PYTHONHASHSEED=0 python -m tools.deid.make_training FOLDER: write the notes that the tagger is trained on.

The wordings of training_wordings.txt and spoken_lines.txt are filled many times with names that the test does not have,
between sentences without identifiers. Some notes are in small letters, in capitals, or spaced as a transcript. The
validation notes have wordings, lines, sentences and names that training has not. The notes are about equally long:
that wastes little on padding. A tag is on the word behind the one it is about, so that the model has read on by one
word when it decides. Needs Faker 40.63.0.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.deid.make_test import SLOT, filled
from tools.deid.training_values import TrainingValues
from tools.deid.word_behind import on_the_word_behind

FOLDER = Path(__file__).parent
ASSETS = FOLDER.parents[1] / "lora_med" / "assets"
SEED, LEAST_LETTERS, MOST_LETTERS = 11, 340, 460
HELD_OUT, HELD_OUT_LINES = 8, 6  # every eighth, and every sixth line, is of the validation part
NOTES = {"train": 14_000, "validation": 500}
SPOKEN, PLAIN, LOWER, UPPER, SPACED = 0.30, 0.15, 0.13, 0.08, 0.12  # shares of notes
TAGGED_LINES = 0.3  # share of the lines with an identifier that a dialogue takes
FORMS = {
    "NAME": ("full", "full", "full", "last", "first", "title", "comma", "initials", "initials", "hyphen", "upper"),
    "DATE": ("slash", "long", "dayfirst", "short", "iso", "dotted", "weekday", "stamp", "monthyear", "monthyear",
             "daymonth"),
    "PHONE": ("dotted", "paren", "plain", "plain", "intl"),
    "ID": ("number", "dashed", "accession", "split", "spaced"),
    "HOSPITAL": ("name", "name", "short", "other"),
}  # fmt: skip
CHOICE = re.compile(r"<([^<>]*\|[^<>]*)>")
OPEN_FORM = re.compile(r"\[\[([A-Z]+) \?")
SENTENCE = re.compile(r"(?<=[.?!])\s+")
SPEAKERS = (
    ("Doctor: ", "Patient: "), ("Doctor: ", "Patient: "), ("Doctor: ", "Patient: "), ("[doctor] ", "[patient] "),
    ("[doctor] ", "[patient] "), ("DR: ", "PT: "), ("Clinician: ", "Patient: "), ("D: ", "P: "),
    ("Nurse: ", "Patient: "),
    ("Doctor: ", "Mother: "), ("Doctor: ", "Guest_family: "), ("Provider: ", "Patient: "), ("- ", "- "), ("", ""),
    ("Physician - ", "Patient - "), ("Q: ", "A: "), ("Speaker 1: ", "Speaker 2: "), ("Nurse: ", "Caller: "),
)  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What the notes of one part are made of."""

    plain: list[str]
    wordings: list[str]
    lines: dict[str, list[str]]


def plain_texts() -> list[str]:
    """Texts without an identifier: lists of terms, and pieces of the dialogues and abstracts of the sample."""
    rng = random.Random(SEED)
    terms = (ASSETS / "terms" / "medical.txt").read_text(encoding="utf-8").splitlines()
    words = " ".join((ASSETS / "terms" / "notes.txt").read_text(encoding="utf-8").splitlines()).split()
    lists = []
    for _ in range(400):
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
    return [*lists, *rng.sample(pieces, min(900, len(pieces)))]


def blocks(name: str) -> list[tuple[str, str]]:
    """The blocks of a file, each with the line that names its kind."""
    parts = (FOLDER / name).read_text(encoding="utf-8").split("%% ")[1:]
    return [(kind, body.strip()) for kind, _, body in (part.partition("\n") for part in parts)]


def material() -> dict[str, Material]:
    """What the notes of each part are made of; the parts share nothing."""
    traps = (FOLDER / "plain_sentences.txt").read_text(encoding="utf-8").splitlines()
    wordings = [body for _, body in blocks("training_wordings.txt")]
    lines = {kind: body.splitlines() for kind, body in blocks("spoken_lines.txt")}
    rng = random.Random(SEED)

    def cut(kind: str, items: list[str], validation: bool) -> list[str]:
        every = HELD_OUT_LINES if kind in lines else HELD_OUT
        return [item for number, item in enumerate(items) if (number % every == every - 1) == validation]

    mixed = {"traps": traps, "texts": plain_texts(), "wordings": wordings, **lines}
    mixed = {kind: rng.sample(items, len(items)) for kind, items in mixed.items()}
    made = {}
    for part in NOTES:
        own = {kind: cut(kind, items, part == "validation") for kind, items in mixed.items()}
        spoken = {kind: own[kind] for kind in lines}
        made[part] = Material([*own["traps"] * 5, *own["texts"]], own["wordings"], spoken)
    return made


def chosen(wording: str, rng: random.Random) -> str:
    """The wording with one of each group of alternatives, and a form for each slot without one."""
    one = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), wording)
    return OPEN_FORM.sub(lambda match: f"[[{match[1]} {rng.choice(FORMS[match[1]])}", one)


def dialogue(lines: dict[str, list[str]], rng: random.Random) -> str:
    """A talk of some lines, of which most name no one."""

    def line(kind: str) -> str:
        while True:
            drawn = rng.choice(lines[kind])
            if "[[" not in drawn or rng.random() < TAGGED_LINES:
                return chosen(drawn, rng)

    first, second = rng.choice(SPEAKERS)
    said = [first + (line("opening") if rng.random() < 0.5 else line("clinician"))]
    for _ in range(rng.randint(1, 3)):
        said.append(second + (line("answer") if rng.random() < 0.7 else f"{line('answer')} {line('answer')}"))
        said.append(first + line("clinician"))
    if rng.random() < 0.4:
        said.append(second + line("closing"))
    return rng.choice(("\n", "\n", "\n", "\n\n", " ")).join(said)


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


def _note(own: Material, values: TrainingValues, rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    """One filled note, and its spans."""
    parts: list[str] = []
    spoken = rng.random() < SPOKEN
    while sum(map(len, parts)) < LEAST_LETTERS:
        if spoken:
            more = [dialogue(own.lines, rng)]
        else:
            more = [chosen(text, rng) for text in rng.choices(own.plain, k=rng.choice((0, 0, 1, 1, 2)))]
            more.append(chosen(rng.choice(own.plain if rng.random() < PLAIN else own.wordings), rng))
        if not parts or sum(map(len, [*parts, *more])) <= MOST_LETTERS:
            parts += more
    text = rng.choice(("\n", "\n", " ")).join(parts)
    share = rng.random()
    if share < SPACED:
        text = as_transcript(text)
    text, spans = filled(text, values)
    if share < SPACED / 2 or SPACED < share < SPACED + LOWER:
        text = same_length(text, "lower")
    elif SPACED + LOWER < share < SPACED + LOWER + UPPER:
        text = same_length(text, "upper")
    return text, spans


def rows(part: str) -> Iterator[dict[str, Any]]:
    """The notes of a part, as rows with spans."""
    validation = part == "validation"
    seed = SEED + validation
    rng, values, own = random.Random(seed), TrainingValues(seed, validation=validation), material()[part]
    for count in range(NOTES[part]):
        text, marked = _note(own, values, rng)
        while len(text) > MOST_LETTERS:
            text, marked = _note(own, values, rng)
        spans = [{"start": span["start"], "end": span["end"], "type": span["type"]} for span in marked]
        yield {"uid": f"{part}:{count}", "group": f"{part}:{count}", "text": text, "spans": spans}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for part in NOTES:
        with (folder / f"{part}.jsonl").open("w", encoding="utf-8") as stream:
            for row in rows(part):
                text, spans = on_the_word_behind(row["text"], row["spans"])
                stream.write(json.dumps(row | {"text": text, "spans": spans}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
