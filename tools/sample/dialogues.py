"""The sample's visits in MTS-Dialog's shape: what doctor and patient said, and the section of the note it became."""

from __future__ import annotations

import csv
import io
import random
from typing import Any

from tools.sample.words import load, say

COLUMNS = ("ID", "section_header", "section_text", "dialogue")
PERSONS = (
    {"he": "she", "He": "She", "his": "her", "person": "woman"},
    {"he": "he", "He": "He", "his": "his", "person": "man"},
)
END_OF_TURN = "\r\n"  # inside the cell too, as in the original


def _facts(rng: random.Random, words: dict[str, Any]) -> dict[str, str]:
    lists = words["facts"] | rng.choice(words["complaints"])
    facts = {name: rng.choice(values) if isinstance(values, list) else values for name, values in lists.items()}
    facts |= rng.choice(PERSONS)
    return facts | {"age": str(rng.randrange(19, 88)), "years": str(rng.randrange(2, 25))}


def _turns(rng: random.Random, topic: dict[str, list[str]], facts: dict[str, str]) -> tuple[str, str]:
    """Question and answer as two lines, and the sentence of the note."""
    question, answer = (say(rng, rng.choice(topic[part]), facts) for part in ("ask", "tell"))
    medicines = [facts[name] for name in ("drug", "drug2") if facts[name] in answer[:1].lower() + answer[1:]]
    note = say(rng, rng.choice(topic["note"]), facts | {"drug_list": " and ".join(medicines)})
    return f"Doctor: {question}{END_OF_TURN}Patient: {answer}", note


def _visit(rng: random.Random, words: dict[str, Any]) -> tuple[str, str, str]:
    section = rng.choices(words["sections"], [item["weight"] for item in words["sections"]])[0]
    facts = _facts(rng, words)
    turns = [_turns(rng, words["topics"][name], facts) for name in section["topics"]]
    return section["header"], " ".join(note for _, note in turns), END_OF_TURN.join(turn for turn, _ in turns)


def write_dialogues(rng: random.Random, visits: int) -> bytes:
    """The CSV file: `visits` rows, no dialogue twice."""
    words = load("dialogues")
    rows: dict[str, tuple[str, str, str]] = {}
    while len(rows) < visits:
        row = _visit(rng, words)
        rows[row[2]] = row
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows((number, *row) for number, row in enumerate(rows.values()))
    return sheet.getvalue().encode()
