"""Invented clinical notes whose identifiers are marked: the gold set that de-identification is measured on.

Written to be hard as real notes are: names without a title, in capitals or in small letters, hospitals known by their
initials, dates in a dozen forms, eponyms that name nobody here. No person, address or number is real.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "lora_med" / "assets" / "deid"
WORDS = Path(__file__).parent / "deid_words.yaml"
SEED, NOTES = 20, 200
SENTENCES = (4, 10)
_SLOT = re.compile(r"<([A-Z]+)>")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
TYPES = {"SSN": "ID", "LOWER": "NAME"}  # what is marked is the type of the identifier, not its form


def _name(rng: random.Random, words: dict[str, Any]) -> str:
    first, last = rng.choice(words["first"]), rng.choice(words["last"])
    forms = (f"{first} {last}", f"{first} {last}", last, first, f"{last}, {first}", f"{first[0]}. {last}", last.upper())
    return rng.choice(forms)


def _date(rng: random.Random, words: dict[str, Any]) -> str:
    year, month, day = rng.randrange(2008, 2026), rng.randrange(1, 13), rng.randrange(1, 29)
    name = words["month"][month - 1]
    return rng.choice(
        (
            f"{month}/{day}/{year}",
            f"{month:02}/{day:02}/{year % 100:02}",
            f"{year}-{month:02}-{day:02}",
            f"{day}.{month}.{year}",
            f"{name} {day}, {year}",
            f"{name} {day}",
            f"{day} {name[:3]} {year}",
            f"{day}-{name[:3].upper()}-{year % 100:02}",
            f"the {day}th of {name}" if day > 3 else f"{name} {year}",
            f"{month}/{day}",
            f"{month}/{year % 100:02}",
            f"{name} of last year",
        )
    )


def _phone(rng: random.Random, words: dict[str, Any]) -> str:
    area, exchange, line = rng.randrange(201, 990), rng.randrange(200, 1000), rng.randrange(1000, 10000)
    return rng.choice(
        (
            f"({area}) {exchange}-{line}",
            f"{area}-{exchange}-{line}",
            f"{area}.{exchange}.{line}",
            f"+44 20 {rng.randrange(7000, 9000)} {line}",
            f"x{rng.randrange(10000, 99999)}",
            f"{exchange}-{line}",
        )
    )


def _identifier(rng: random.Random, words: dict[str, Any]) -> str:
    number = rng.randrange(100_000, 9_999_999)
    return rng.choice(
        (f"{number:07}", f"S{rng.randrange(10, 26)}-{rng.randrange(1000, 9999)}", f"AB{number}", f"{number:09}")
    )


def _age(rng: random.Random, words: dict[str, Any]) -> str:
    age = rng.randrange(90, 104)
    return rng.choice((f"{age}-year-old", f"{age} yo", f"{age} y/o", f"{age} years old", f"{age}"))


def _location(rng: random.Random, words: dict[str, Any]) -> str:
    city = rng.choice(words["city"])
    address = f"{city}, {rng.choice(words['state'])} {rng.randrange(10000, 99999)}"
    return rng.choice((rng.choice(words["street"]), city, address))


def _email(rng: random.Random, words: dict[str, Any]) -> str:
    return f"{rng.choice(words['first']).lower()}.{rng.randrange(10, 99)}@example.{rng.choice(('org', 'com', 'net'))}"


VALUES: dict[str, Callable[[random.Random, dict[str, Any]], str]] = {
    "NAME": _name,
    "LOWER": lambda rng, words: str(rng.choice(words["first"])).lower(),
    "DATE": _date,
    "PHONE": _phone,
    "ID": _identifier,
    "SSN": lambda rng, words: f"{rng.randrange(900, 999)}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}",
    "AGE": _age,
    "HOSPITAL": lambda rng, words: rng.choice(words["hospital"]),
    "LOCATION": _location,
    "EMAIL": _email,
    "URL": lambda rng, words: f"{rng.choice(('https://', 'www.'))}portal{rng.randrange(1, 99)}.example.org/visit",
}


def _note(rng: random.Random, words: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    text, spans = "", list[dict[str, Any]]()
    late = set(words["late"])
    for sentence in rng.sample([*words["sentences"], *words["late"]], rng.randint(*SENTENCES)):
        plain = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), sentence)
        for number, part in enumerate(_SLOT.split(plain)):
            if number % 2:
                value = VALUES[part](rng, words)
                spans.append({"start": len(text), "end": len(text) + len(value), "type": TYPES.get(part, part)})
                spans[-1]["late"] = sentence in late
                text += value
            else:
                text += part
        text += "\n" if rng.random() < 0.4 else " "
    return text.rstrip(), spans


def make_notes(seed: int = SEED, notes: int = NOTES) -> bytes:
    """JSON lines: uid, text, and spans of `{start, end, type, late}` in the order of the text.

    `late` marks an identifier in a sentence that was written after the patterns were frozen.
    """
    words = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    rng = random.Random(f"notes {seed}")
    rows = [dict(zip(("text", "spans"), _note(rng, words), strict=True)) for _ in range(notes)]
    return "".join(json.dumps({"uid": f"note:{n}"} | row) + "\n" for n, row in enumerate(rows)).encode()


def write_notes(folder: Path | str = FOLDER) -> Path:
    """Write the gold set as `notes.jsonl` into `folder`; the same bytes each time."""
    path = Path(folder) / "notes.jsonl"
    path.write_bytes(make_notes())
    return path
