"""PYTHONHASHSEED=0 python benchmarks/deid_validation.py MODEL...: what taggers find in the validation notes.

For each adapter (a name or a folder) recall, recall of names and precision of the tagger with the patterns, at several
log-odds, and what is missed and marked too much by type. Everything about the tagger is chosen by this, and by nothing
of the test. Needs Faker 40.63.0.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lora_med.audit.deidentify import load_finder
from lora_med.audit.identifiers import Identifier, repeated_names, united
from lora_med.audit.tagger import load_tagger_of_identifiers
from lora_med.audit.word_tags import words_of
from tools.deid.make_training import rows

LEADS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
WEAK_LEADS = (0.0, -1.0, -2.0, -3.0, -4.0)
SURE_LEADS = (2.0, 4.0, 6.0)


def counted(notes: Sequence[dict[str, Any]], found: Sequence[Sequence[Identifier]]) -> dict[str, Any]:
    """Recall, recall of names and precision, and what is missed and marked too much by type."""
    marked, hit, wrong = Counter[str](), Counter[str](), Counter[str]()
    total = 0
    for note, identifiers in zip(notes, found, strict=True):
        text = note["text"]
        covered = {offset for identifier in identifiers for offset in range(identifier.start, identifier.end)}
        gold = {offset for span in note["spans"] for offset in range(span["start"], span["end"])}
        total += len(identifiers)
        for identifier in identifiers:
            wrong[identifier.type] += gold.isdisjoint(range(identifier.start, identifier.end))
        for span in note["spans"]:
            marked[span["type"]] += 1
            letters = {offset for offset in range(span["start"], span["end"]) if text[offset].isalnum()}
            hit[span["type"]] += letters <= covered
    return {
        "recall": round(hit.total() / marked.total(), 3),
        "names": round(hit["NAME"] / marked["NAME"], 3),
        "precision": round(1 - wrong.total() / max(1, total), 3),
        "missed": {kind: f"{marked[kind] - hit[kind]} of {marked[kind]}" for kind in marked},
        "wrong": dict(wrong),
    }


def main() -> None:
    notes = list(rows("validation"))
    find = load_finder()
    patterns = [find(note["text"]) for note in notes]
    print("patterns", json.dumps(counted(notes, patterns)))
    words = [words_of(note["text"]) for note in notes]
    for model in sys.argv[1:]:
        tagger = load_tagger_of_identifiers(model)
        tags = [tagger.read(note["text"], own) for note, own in zip(notes, words, strict=True)]
        choices = [(lead, math.inf, 0.0) for lead in LEADS]
        choices += [(0.0, sure, weak) for sure in SURE_LEADS for weak in WEAK_LEADS]
        for lead, sure, weak in choices:
            chosen = replace(tagger, least_lead=lead, sure_lead=sure, weak_lead=weak)
            found = []
            for note, own, read, others in zip(notes, words, tags, patterns, strict=True):
                both = [*others, *chosen.identifiers(note["text"], own, read)]
                found.append(united(note["text"], [*both, *repeated_names(note["text"], both)]))
            print(model, lead, sure, weak, json.dumps(counted(notes, found)), flush=True)


if __name__ == "__main__":
    main()
