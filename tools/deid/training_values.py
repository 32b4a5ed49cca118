"""Identifiers for the training notes alone: those of slot_values.py, and forms that the test has no slot for.

A tenth of the names of training is in the validation notes alone; a second byte of their hash decides. So the part that
everything is chosen on has wordings and names that training has not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from tools.deid.slot_values import WORDS, Values, is_of_test

PARTICLES = (
    "van der", "van", "von", "de", "de la", "del", "della", "di", "da", "dos", "du", "le", "la", "bin", "bint", "ibn",
    "al", "el", "ter", "van den", "St.", "ten",
)  # fmt: skip
PREFIXES = ("O'", "O’", "Mc", "Mac", "D'", "Al-", "El-", "Fitz", "Ben-")
PARTICLE_SHARE, PREFIX_SHARE, MADE_UP, MORE_WORDS = 0.04, 0.05, 0.12, 0.08  # of names
WORD_FIRST, WORD_LAST, ONSETS, CORES, CODAS, ENDINGS, TOWN_ENDINGS, ORDINALS, TENS, UNITS = map(
    str.split,
    (
        "Penny Sandy Iris Lily Violet Daisy Olive Ruby Pearl Crystal Amber Chase Hunter Chance Gene Jack Dean Grant "
        "Frank Earl Dale Glen Rusty Sonny Bud Melody Harmony Destiny Ginger Basil Sage Clay Cliff Rob Sue Carol Holly "
        "Angel Star Sky River Ford Miles Reed Trip Buddy Guy Pierce Wade Skip Van Major",
        "Black White Green Gray Strong Swift Sharp Bright Moody Self Law Case Church Hill Field Rivers Waters Snow "
        "Winter Fox Wolf Lamb Crane Bird Fish Bell Ball Cross Marks Burns Payne Fields Baker Carter Miller Mason Page "
        "Pool Power Savage Sweet Temple Wall Ward West North Woods Early Weeks Blood Foot Heart Chin Heard Gore Root "
        "Nail Battle Bishop Bloom Boggs Bush Butts Castle Close Cotton Dose Drain Farmer Fountain Freeze Glass Golden",
        "b br c ch d dr f g gr h j k kl l m n p pr r s sh st sz t th tr v w y z zh",
        "a e i o u aa ai au ee ei ia ie io oa oo ou ua ue y á é í ö ü",
        "b ck d k l ll m n nn ng r rs s sk t th v x",
        "a o ov ski sen son ez ian ova man i ić ea",
        "ton ville burg ford stad ham field port minster dorf grad bury",
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth",
        "twenty thirty forty fifty",
        "one two three four five six seven eight nine",
    ),
)
HOSPITALS = (
    "University Hospital of {0}", "{0} Health Center", "{0} Health Centre", "{0} Family Practice", "{0} Care Home",
    "{0} Nursing Home", "{0} Eye Institute", "Royal {0} Infirmary", "{0} Regional", "{0} Memorial Hospital",
    "{0} Children's", "{0} County Hospital", "{0} Heart Centre", "{0} Surgery Center", "the {0} Clinic",
    "{0} and {1} Hospital", "Queen {0} Hospital", "{0} House", "{0} VA", "{0} Rehab",
)  # fmt: skip
VALIDATION_BELOW, MOST_TRIES = 26, 100  # of 256; draws


def is_of_validation(word: str) -> bool:
    """Whether a name or place of training is in the validation notes alone, by its hash."""
    return hashlib.sha256(word.lower().encode()).digest()[1] < VALIDATION_BELOW


@dataclass
class TrainingValues(Values):
    """Values of training; `validation` for the part that everything is chosen on."""

    of_test: bool = False
    validation: bool = False

    def _drawn(self, draw: Callable[[], str]) -> str:
        for tries in count():
            text = draw()
            rare = self.validation and tries > MOST_TRIES  # a short list may have no word of the validation part
            if not is_of_test(text) and (rare or is_of_validation(text) == self.validation):
                return text
        raise AssertionError  # count() does not end

    def _made_up(self, endings: Sequence[str]) -> str:
        """A name that no list has, of one to three syllables."""
        choice = self.random.choice
        syllables = [
            choice(ONSETS) + choice(CORES) + choice(("", choice(CODAS)))
            for _ in range(self.random.choice((1, 1, 2, 2, 3)))
        ]
        return ("".join(syllables) + choice(("", choice(endings)))).capitalize()

    def _first(self) -> str:
        share = self.random.random()
        if share < MADE_UP:
            return self._drawn(lambda: self._made_up(("a", "o", "e", "i", "el", "y")))
        if share < MADE_UP + MORE_WORDS:
            return self._drawn(lambda: self.random.choice(WORD_FIRST))
        return super()._first()

    def _last(self) -> str:
        share = self.random.random()
        if share < PARTICLE_SHARE:
            return f"{self.random.choice(PARTICLES)} {super()._last()}"
        if share < PARTICLE_SHARE + PREFIX_SHARE:
            return self._drawn(lambda: self.random.choice(PREFIXES) + super(TrainingValues, self)._last())
        if share < PARTICLE_SHARE + PREFIX_SHARE + MADE_UP:
            return self._drawn(lambda: self._made_up(ENDINGS))
        if share < PARTICLE_SHARE + PREFIX_SHARE + MADE_UP + MORE_WORDS:
            return self._drawn(lambda: self.random.choice(WORD_LAST))
        return super()._last()

    def _city(self) -> str:
        if self.random.random() < MADE_UP:
            return self._drawn(lambda: self._made_up(TOWN_ENDINGS))
        return super()._city()

    def _name(self, form: str, key: str | None) -> str:
        if form.startswith("particle"):
            if key and key not in self.people:
                self.people[key] = self._first(), f"{self.random.choice(PARTICLES)} {super()._last()}"
            rest = form.removeprefix("particle") or "full"
            return super()._name(rest, key)
        if form == "letters":
            return "".join(word[0] for word in re.findall(r"\w+", super()._name("full", key))).upper()
        if form == "lines":
            return re.sub(r" ", "\n", super()._name(self.random.choice(("full", "comma")), key), count=1)
        return super()._name(form, key)

    def _date(self, form: str) -> str:
        if form != "spoken":
            return super()._date(form)
        day, month = self.random.randrange(1, 32), self.random.choice(WORDS["months"])
        ordinal = ORDINALS[day - 1] if day <= 20 else f"{TENS[day // 10 - 2]} {ORDINALS[day % 10 - 1]}"
        ordinal = "thirtieth" if day == 30 else ordinal
        numbered = f"{day}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(day if day < 20 else day % 10, 'th') }"
        year = self.random.choice(
            (
                f"nineteen {self.random.choice(TENS[1:])} {self.random.choice(UNITS)}",
                f"{self.random.randrange(1930, 2025)}",
            )
        )
        spelled = (f"the {ordinal} of {month}", f"{month} {ordinal}", f"{month} the {numbered}", f"{month} {numbered}")
        return self.random.choice(spelled) + self.random.choice(("", f", {year}", f" {year}"))

    def _hospital(self, form: str) -> str:
        if form != "other":
            return super()._hospital(form)
        saint = self.random.choice(WORDS["saints"])
        first = self.random.choice((saint, self._last(), self._city()))
        return self.random.choice(HOSPITALS).format(first, self._city())

    def _phone(self, form: str) -> str:
        if form == "lines":
            return re.sub(r"[ -](?=\d+$)", lambda match: f"{match[0].strip()}\n", super()._phone("plain"), count=1)
        return super()._phone(form)

    def _id(self, form: str) -> str:
        number = self.random.randrange(100_000_000, 9_999_999_999)
        if form == "spaced":
            return self.random.choice(
                (f"{number % 1000:03} {number // 1000 % 1000:03} {number % 10_000:04}", f"{number:,}".replace(",", " "))
            )
        if form == "lines":
            return f"{number // 10_000}{self.random.choice(('-', ''))}\n{number % 10_000:04}"
        return super()._id(form)

    def _age(self, form: str) -> str:
        if form == "words":
            return self.random.choice(
                (f"ninety-{self.random.choice(UNITS)}", "ninety", f"a hundred and {self.random.choice(UNITS)}")
            )
        return super()._age(form)
