"""Invented identifiers in place of real ones: of the same kind, about as long, and the same throughout a patient.

A first name that is known as a woman's or a man's gets one of the same sex. Digits and letters of numbers change, their
form stays. Dates are shifted elsewhere. No word of a name becomes itself. The choice depends on the secret, the patient
and the word. Two words of a patient never get the same name, as long as the lists have enough.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import string
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
DIGITS = re.compile(r"\d+")
LONGEST_SHORT, LONGEST_MIDDLE = 4, 7  # letters of the length classes
OLDEST_SHOWN = "90"  # older ages are one class
# Words that name no one: they say what kind of place it is.
GENERIC_WORDS = (
    "hospital general medical center centre clinic infirmary hospice children's children’s nursing home care house "
    "memorial practice surgery rehabilitation rehab university community regional city county st saint mount mt the "
    "of and at street road lane avenue close drive way court terrace gardens crescent row square boulevard place rd "
    "ave ln dr blvd ct pl apt unit suite flat"
)
GENERIC = frozenset(GENERIC_WORDS.split())


@cache
def name_lists() -> dict[str, dict[int, list[str]]]:
    """The names that ship: kind -> length class -> names."""
    text = (files("lora_med") / "assets" / "deid" / "surrogates.json").read_text(encoding="utf-8")
    lists: dict[str, dict[int, list[str]]] = {}
    for kind, words in json.loads(text).items():
        by_length: defaultdict[int, list[str]] = defaultdict(list)
        for word in words:
            by_length[length_class(word)].append(word)
        lists[kind] = dict(by_length)
    return lists


@cache
def _kind_of_name() -> dict[str, str]:
    return {
        word.casefold(): kind
        for kind in ("female", "male", "either")
        for words in name_lists()[kind].values()
        for word in words
    }


def length_class(word: str) -> int:
    """0 for a short word, 1 for a middle one, 2 for a long one."""
    return (len(word) > LONGEST_SHORT) + (len(word) > LONGEST_MIDDLE)


@dataclass
class Surrogates:
    """The surrogates of a run; `secret` is the one that shifts the dates."""

    secret: bytes
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _taken: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def of(self, patient: str, otherwise: Callable[[str, str], str]) -> Callable[[str, str], str]:
        """A function from type and identifier of this patient to the text in its place.

        Args:
            otherwise: for dates, and for what has no surrogate.
        """
        makers = {
            "NAME": lambda text: self._words(patient, text, None),
            "HOSPITAL": lambda text: self._words(patient, text, "place"),
            "LOCATION": lambda text: self._words(patient, text, "place"),
            "PHONE": lambda text: self._number(patient, text, text),
            "ID": lambda text: self._number(patient, text, text),
            "EMAIL": lambda text: f"{self._code(patient, text)}@example.org",
            "URL": lambda text: f"https://example.org/{self._code(patient, text)}",
            "AGE": lambda text: DIGITS.sub(OLDEST_SHOWN, text, count=1) if DIGITS.search(text) else None,
        }

        def instead(kind: str, text: str) -> str:
            made = makers[kind](text) if kind in makers else None
            return otherwise(kind, text) if made is None else made

        return instead

    # ---- Words ----

    def _words(self, patient: str, text: str, kind: str | None) -> str:
        """The text with other digits, and with each word that names someone or something replaced."""

        def replaced(match: re.Match[str]) -> str:
            word = match[0]
            if kind is not None and word.casefold() in GENERIC:
                return word
            if len(word) == 1 or (kind is not None and word.isupper() and len(word) <= LONGEST_SHORT + 1):
                return self._letters(patient, word)
            return _cased_like(self._name(patient, word, kind), word)

        return self._number(patient, WORD.sub(replaced, text), text)

    def _name(self, patient: str, word: str, kind: str | None) -> str:
        """The name in place of a word, the same at each call."""
        folded = word.casefold()
        if (patient, folded) not in self._names:
            lists = name_lists()[kind or _kind_of_name().get(folded, "family")]
            names = lists.get(length_class(word)) or max(lists.values(), key=len)
            start = self._draw(patient, folded, len(names))
            order = [*names[start:], *names[:start]]
            others = [name for name in order if name.casefold() != folded]
            free = (name for name in others if name not in self._taken[patient])
            self._names[patient, folded] = next(free, others[0])
            self._taken[patient].add(self._names[patient, folded])
        return self._names[patient, folded]

    # ---- Numbers ----

    def _number(self, patient: str, text: str, key: str) -> str:
        """The text with other digits, and with other letters in a word with a digit; its form stays."""
        made: list[str] = []
        for number, piece in enumerate(re.split(r"(\s+)", text)):
            has_digit = DIGITS.search(piece) is not None
            made += [
                self._other(patient, f"{key}\x00{number}\x00{offset}", character)
                if character.isdigit() or (has_digit and character.isalpha())
                else character
                for offset, character in enumerate(piece)
            ]
        return "".join(made)

    def _letters(self, patient: str, word: str) -> str:
        """Initials: each letter becomes another one, the same for the same letter."""
        return "".join(self._other(patient, letter.casefold(), letter) for letter in word)

    def _other(self, patient: str, key: str, character: str) -> str:
        """Another digit for a digit, another letter of the same case for a letter."""
        alphabet = string.digits
        if character.isalpha():
            alphabet = string.ascii_uppercase if character.isupper() else string.ascii_lowercase
        others: Sequence[str] = [other for other in alphabet if other != character]
        return others[self._draw(patient, key, len(others))]

    def _code(self, patient: str, text: str) -> str:
        return f"user{self._draw(patient, text.casefold(), 10**6):06}"

    def _draw(self, patient: str, key: str, count: int) -> int:
        """A number below `count`, the same for the same secret, patient and key."""
        mark = hmac.new(self.secret, f"{patient}\x00{key}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return int.from_bytes(mark[:8], "big") % count


def _cased_like(name: str, like: str) -> str:
    return name.upper() if like.isupper() else name.lower() if like.islower() else name
