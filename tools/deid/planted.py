"""PYTHONHASHSEED=0 python -m tools.deid.planted DATA OUT.jsonl: real texts with invented names in place of theirs.

DATA is the folder that holds mts_dialog/ and aci_bench/, which are not ours to ship. planted_places.yaml lists the
texts and the place of each identifier in them; all were read to the end. A text longer than 900 letters ends at a line
before that. Each is filled twice with the names of the test; a note's `group` is its text. Needs Faker 40.63.0.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tools.deid.make_test import filled
from tools.deid.slot_values import Values

PLACES: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(
    Path(__file__).with_name("planted_places.yaml").read_text(encoding="utf-8")
)
SEED, FILLS, MOST_LETTERS = 13, 2, 900
NAME_FORMS = ("last", "last", "full", "initials", "hyphen")  # after "Doctor"


def _text(data: Path, file: str, key: str) -> str:
    """A text of a file, cut at the last line that fits."""
    name, _, column = file.partition(" ")
    with (data / name).open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if key in (row.get("ID"), row.get("encounter_id")):
                text = row[column or "dialogue"].replace("\r", "")
                return text if len(text) <= MOST_LETTERS else text[: text.rindex("\n", 0, MOST_LETTERS)]
    raise LookupError(f"{file} has no {key}")


def _with_slots(text: str, places: dict[str, str], rng: random.Random) -> str:
    """The text with a slot at each place; in a transcript in small letters the value will be in small letters."""
    for word, slot in places.items():
        if slot.startswith("="):
            continue
        form = slot.replace("any", rng.choice(NAME_FORMS))
        text, count = re.subn(rf"(?<!\w){re.escape(word)}(?!\w)", f"[[{form}]]", text)
        if not count:
            raise LookupError(f"no {word!r} in the text")
    return text


def planted(data: Path) -> Iterator[dict[str, Any]]:
    """The notes, in a fixed order: uid, group, text, spans."""
    rng, values = random.Random(SEED), Values(SEED, of_test=True)
    for fill in range(FILLS):
        for file, texts in PLACES.items():
            for key, places in texts.items():
                original = _text(data, file, key)
                # ACI-Bench's dialogues have square brackets of their own, which are no slots.
                text, spans = filled(_with_slots(original, places, rng), values)
                if original == original.lower():
                    text = "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
                for word, slot in places.items():
                    if slot.startswith("="):
                        kind, form = slot[1:].split()
                        matches = re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text)
                        spans += [{"start": m.start(), "end": m.end(), "type": kind, "form": form} for m in matches]
                spans.sort(key=lambda span: span["start"])
                yield {"uid": f"planted:{fill}:{file}:{key}", "group": f"{file}:{key}", "text": text, "spans": spans}


def main() -> None:
    content = "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in planted(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
