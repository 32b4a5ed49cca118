"""Invented identifiers for the slots of a wording: names of many languages by Faker, dates in twelve forms, numbers.

Half of all first names, family names and places belong to the test, the other half to training; the SHA-256 of the word
decides. So no name of the test was seen in training. No person, address or number is real.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import yaml
from faker import Faker  # pyright: ignore[reportMissingImports]

WORDS: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
WORD_NAMES, ROMANIZED = 0.12, 0.2  # shares of names


def is_of_test(word: str) -> bool:
    """Whether a name or place belongs to the test, by its hash."""
    return hashlib.sha256(word.lower().encode()).digest()[0] % 2 == 0


@dataclass
class Values:
    """Draws the texts of the slots of one document after the other; the same seed gives the same texts."""

    seed: int
    of_test: bool
    people: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.fakers = [Faker(locale) for locale in WORDS["locales"]]
        for number, faker in enumerate(self.fakers):
            faker.seed_instance(self.seed * 1000 + number)

    def begin(self) -> None:
        """Forget the people of the document before."""
        self.people = {}

    def value(self, kind: str, form: str, key: str | None) -> str:
        """The text of a slot `[[kind form=key]]`."""
        if kind == "NAME":
            return self._name(form, key)
        forms: dict[str, Callable[[str], str]] = {
            "DATE": self._date, "LOCATION": self._location, "HOSPITAL": self._hospital, "PHONE": self._phone,
            "ID": self._id, "EMAIL": self._email, "URL": self._url, "AGE": self._age,
        }  # fmt: skip
        return forms[kind](form)

    # ---- Names ----

    def _drawn(self, draw: Callable[[], str]) -> str:
        """The next text of this half."""
        while True:
            text = draw()
            if is_of_test(text) == self.of_test:
                return text

    def _first(self) -> str:
        return self._part("first", lambda faker: faker.first_name())

    def _last(self) -> str:
        return self._part("last", lambda faker: faker.last_name())

    def _part(self, part: str, invent: Callable[[Faker], str]) -> str:
        """A first or last name: at times one that is a word, or one from another script."""
        share = self.random.random()
        if share < WORD_NAMES:
            return self._drawn(lambda: self.random.choice(WORDS[f"word_{part}"]))
        if share < WORD_NAMES + ROMANIZED:
            return self._drawn(lambda: self.random.choice(WORDS[f"romanized_{part}"]))
        return self._drawn(lambda: invent(self.random.choice(self.fakers)))

    def _name(self, form: str, key: str | None) -> str:
        first, last = self.people.get(key or "", ("", ""))
        if not first:
            first, last = self._first(), self._last()
            if form == "hyphen":
                first, last = self.random.choice(
                    ((f"{first}-{self._first()}", last), (first, f"{last}-{self._last()}"))
                )
            if key:
                self.people[key] = first, last
        middle = f"{self._first()[0]}."
        initials = "".join(f"{word[0]}." for word in re.split(r"[\s-]+", first) if word)
        return {
            "first": first,
            "last": last,
            "full": f"{first} {last}",
            "hyphen": f"{first} {last}",
            "comma": f"{last}, {first}",
            "title": self.random.choice((f"{first} {last}", f"{initials} {last}", f"{first} {middle} {last}")),
            "initials": self.random.choice((f"{initials} {last}", f"{initials}{last[0]}.", f"{last} {initials}")),
            "upper": f"{first} {last}".upper(),
            "lower": f"{first} {last}".lower(),
            "lowerfirst": first.lower(),
            "lowerlast": last.lower(),
        }[form]

    # ---- The rest ----

    def _date(self, form: str) -> str:
        day = date(2008, 1, 1) + timedelta(days=self.random.randrange(6500))
        month, name = day.month, WORDS["months"][day.month - 1]
        ending = {1: "st", 2: "nd", 3: "rd"}.get(day.day if day.day < 20 else day.day % 10, "th")
        digits, spelled = f"{month:02}/{day.day:02}/{day.year}", f"{day.day} {name} {day.year}"
        time = f"{self.random.randrange(24):02}:{self.random.randrange(60):02}"
        return {
            "slash": self.random.choice((digits, f"{month}/{day.day}/{day.year % 100:02}")),
            "long": f"{name} {day.day}, {day.year}",
            "dayfirst": self.random.choice((spelled, f"the {day.day}{ending} of {name} {day.year}")),
            "short": self.random.choice((f"{month}/{day.day}", f"{day.day}-{name[:3].upper()}-{day.year % 100:02}")),
            "iso": f"{day.year}-{month:02}-{day.day:02}",
            "dotted": f"{day.day}.{month}.{day.year}",
            "weekday": f"{WORDS['weekdays'][day.weekday()]} {day.day} {name}",
            "stamp": f"{day.year}-{month:02}-{day.day:02} {time}",
            "monthyear": self.random.choice((f"{name} {day.year}", f"{month:02}/{day.year}")),
            "daymonth": self.random.choice((f"{day.day} {name}", f"{name} {day.day}{ending}")),
        }[form]

    def _city(self) -> str:
        return self._drawn(lambda: self.random.choice(self.fakers).city()).replace("\n", " ")

    def _location(self, form: str) -> str:
        if form == "city":
            return self._city()
        if form == "zip":
            area = f"{self.random.choice('BCDEGHKLMNPRSW')}{self.random.randrange(1, 30)}"
            return self.random.choice(
                (f"{self.random.randrange(10000, 99999)}", f"{area} {self.random.randrange(10)}QT")
            )
        word = self.random.choice([self._last(), self.random.choice(WORDS["street_words"])])
        return f"{self.random.randrange(1, 240)} {word} {self.random.choice(WORDS['streets'])}"

    def _hospital(self, form: str) -> str:
        name = self.random.choice([self.random.choice(WORDS["saints"]), self._last(), self._city()])
        full = f"{name} {self.random.choice(WORDS['hospitals'])}"
        if form == "name":
            return full
        return "".join(word[0] for word in re.findall(r"\w+", full)).upper() if self.random.random() < 0.5 else full

    def _phone(self, form: str) -> str:
        area, middle, line = (self.random.randrange(low, high) for low, high in ((201, 990), (200, 999), (1000, 9999)))
        return {
            "dotted": f"{area}.{middle}.{line}",
            "paren": f"({area}) {middle}-{line}",
            "plain": self.random.choice(
                (f"{area}-{middle}-{line}", f"0{area} {middle}{line}", f"{area} {middle}{line}")
            ),
            "intl": f"+{self.random.choice((44, 49, 33, 48, 90, 234))} {area} {middle} {line}",
            "ext": self.random.choice((f"{line}", f"x{line}", f"ext. {line}")),
        }[form]

    def _id(self, form: str) -> str:
        number = self.random.randrange(1_000_000, 99_999_999)
        letters = "".join(self.random.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=2))
        return {
            "number": f"{number}",
            "dashed": f"{number % 1000:03}-{number // 1000 % 100:02}-{number // 100000:04}",
            "accession": self.random.choice((f"{letters}{number}", f"{letters[0]}{number % 30:02}-{number // 3000}")),
            "split": f"{number // 1000}\n{number % 1000:03}",
        }[form]

    def _age(self, form: str) -> str:
        return str(self.random.randrange(90, 106))

    def _email(self, form: str) -> str:
        first, last = (re.sub(r"\W", "", word.lower()) or "x" for word in (self._first(), self._last()))
        name = self.random.choice((f"{first}.{last}", f"{first[0]}{last}", f"{first}{self.random.randrange(99)}"))
        return f"{name}@{self.random.choice(('example.org', 'mail.example.com', 'post.example.net'))}"

    def _url(self, form: str) -> str:
        last = re.sub(r"\W", "", self._last().lower()) or "x"
        return self.random.choice(
            (f"https://{last}.example.org/p/{self.random.randrange(9999)}", f"www.example.net/{last}")
        )
