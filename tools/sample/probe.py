"""A probe of general language and knowledge, to see what an adapter made its base forget; written from word lists.

Each item is a sentence's beginning with two to four endings, one of them right: grammar in pairs that differ in one
word, everyday knowledge, small sums. The right ending is at every position equally often. Nothing is
copied from anywhere.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

PROBE = Path(__file__).parents[2] / "lora_med" / "assets" / "probe" / "general.jsonl"
SEED = 42
EACH = 60  # items of a kind, or as many as its list gives

PEOPLE = ("girl", "boy", "teacher", "farmer", "singer", "driver", "neighbour", "child", "painter", "sailor")
THINGS = ("apple", "letter", "chair", "ticket", "basket", "bottle", "window", "blanket", "picture", "bicycle")
PLACES = ("the house", "the river", "the school", "the market", "the station", "the garden", "the bridge", "the shop")
VERBS = (("walk", "walks"), ("sing", "sings"), ("sleep", "sleeps"), ("laugh", "laughs"), ("wait", "waits"))
WHEN = ("every day", "in the morning", "on Sundays", "all night", "in the summer")
ACTS = (
    ("written", "wrote", "the letter"),
    ("eaten", "ate", "the bread"),
    ("broken", "broke", "the window"),
    ("taken", "took", "the train"),
    ("seen", "saw", "the picture"),
    ("driven", "drove", "the car"),
    ("given", "gave", "the answer"),
    ("begun", "began", "the work"),
)
SELVES = {"girl": "herself", "queen": "herself", "mother": "herself", "boy": "himself", "king": "himself"}
SELVES |= {"father": "himself", "girls": "themselves", "boys": "themselves", "parents": "themselves"}
HURT = ("hurt", "dressed", "blamed", "taught", "washed", "saw", "described")
CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Egypt": "Cairo",
    "Russia": "Moscow",
    "Greece": "Athens",
    "Austria": "Vienna",
    "Portugal": "Lisbon",
    "Poland": "Warsaw",
}
OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "early": "late",
    "open": "closed",
    "full": "empty",
    "young": "old",
    "fast": "slow",
    "heavy": "light",
    "wet": "dry",
    "rich": "poor",
    "strong": "weak",
    "loud": "quiet",
}
YOUNG = {"dog": "puppy", "cat": "kitten", "cow": "calf", "horse": "foal", "sheep": "lamb", "hen": "chick"}
MADE_OF = {"window": "glass", "book": "paper", "sweater": "wool", "coin": "metal", "table": "wood", "wall": "stone"}
WORKS = {
    "baker": "bread",
    "tailor": "clothes",
    "writer": "books",
    "carpenter": "furniture",
    "shoemaker": "shoes",
    "painter": "pictures",
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBERS = tuple(_NUMBERS.split())

Item = tuple[str, str, tuple[str, ...]]  # beginning, right ending, wrong endings


def write_probe(path: Path | str = PROBE, *, seed: int = SEED) -> Path:
    """Write the probe as JSON lines: uid, subject, question, options, answer; the same seed, the same bytes."""
    draw = random.Random(seed)
    lines = []
    for subject, items in _kinds(draw):
        chosen = sorted(draw.sample(items, min(EACH, len(items))))
        draw.shuffle(chosen)
        for number, (beginning, right, wrong) in enumerate(chosen):
            options = list(wrong)
            options.insert(number % (len(wrong) + 1), right)
            row = {
                "uid": f"{subject}-{number + 1:02}",
                "subject": subject,
                "question": beginning,
                "options": options,
                "answer": right,
            }
            lines.append(json.dumps(row, ensure_ascii=False))
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Path(path)


def _kinds(draw: random.Random) -> Iterator[tuple[str, list[Item]]]:
    yield "agreement", list(_agreement())
    yield "determiner", list(_determiners())
    yield "reflexive", list(_reflexives())
    yield "participle", list(_participles())
    yield "knowledge", list(_knowledge(draw))
    yield "arithmetic", list(_sums(draw))


def _agreement() -> Iterator[Item]:
    """A verb that goes with its subject and not with the noun beside it."""
    for number, person in enumerate(PEOPLE):
        other = PEOPLE[(number + 3) % len(PEOPLE)]
        for index, (plural, singular) in enumerate(VERBS):
            when = WHEN[(number + index) % len(WHEN)]
            many, one = f"{plural} {when}.", f"{singular} {when}."
            yield f"The {person}s who know the {other}", many, (one,)
            yield f"The {person} who knows the {other}s", one, (many,)


def _determiners() -> Iterator[Item]:
    for number, thing in enumerate(THINGS):
        for index, person in enumerate(PEOPLE[:4]):
            where = PLACES[(number + index) % len(PLACES)]
            many, one = f"{thing}s near {where}.", f"{thing} near {where}."
            yield f"The {person} looked at these", many, (one,)
            yield f"The {person} looked at this", one, (many,)


def _reflexives() -> Iterator[Item]:
    for person, right in SELVES.items():
        for verb in HURT:
            wrong = tuple(sorted({"herself", "himself", "themselves"} - {right}))
            yield f"The {person} {verb}", f"{right}.", tuple(f"{ending}." for ending in wrong)


def _participles() -> Iterator[Item]:
    for participle, past, what in ACTS:
        for person in PEOPLE:
            yield f"The {person} has", f"{participle} {what}.", (f"{past} {what}.",)


def _knowledge(draw: random.Random) -> Iterator[Item]:
    yield from _pairs(CAPITALS, "The capital of {} is", draw)
    yield from _pairs(OPPOSITES, "The opposite of {} is", draw)
    yield from _pairs(YOUNG, "A young {} is called a", draw)
    yield from _pairs(MADE_OF, "A {} is usually made of", draw)
    yield from _pairs(WORKS, "A {} makes", draw)
    yield from _pairs(dict(zip(DAYS, (*DAYS[1:], DAYS[0]), strict=True)), "The day after {} is", draw)
    yield from _pairs(dict(zip(MONTHS, (*MONTHS[1:], "December"), strict=True)), "The month after {} is", draw)


def _pairs(table: dict[str, str], beginning: str, draw: random.Random) -> Iterator[Item]:
    for subject, right in table.items():
        others = sorted(set(table.values()) - {right, subject})
        yield beginning.format(subject), f"{right}.", tuple(f"{other}." for other in draw.sample(others, 3))


def _sums(draw: random.Random) -> Iterator[Item]:
    for first in range(1, 11):
        for second in range(first, 11):
            right = first + second
            near = [number for number in range(max(2, right - 4), min(20, right + 4) + 1) if number != right]
            wrong = tuple(f"{NUMBERS[number]}." for number in draw.sample(near, 3))
            yield f"{NUMBERS[first].capitalize()} plus {NUMBERS[second]} is", f"{NUMBERS[right]}.", wrong
