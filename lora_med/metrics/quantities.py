"""Numbers, doses and units in medical text, normalized over their spellings.

Equal numbers are `1,000` and `1000`, `½`, `1/2`, `half` and `0.5`, `twenty six` and `26`, `5th` and `fifth`. Equal
doses are `mcg` and `µg`, `0.5 g` and `500 mg`, `b.i.d.` and `twice a day`, `every 8 hours` and `3x a day`. Equal dates
are `two thousand nine` and `2009`, `04/15` and `April fifteenth`. Numbers of list items are excluded. Not detected:
Roman numerals, and what a number refers to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
SMALL = {word: value for value, word in enumerate(_SMALL.split())}
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
TENS = {word: value for value, word in zip(range(20, 100, 10), _TENS.split(), strict=True)}
DECADES = {f"{word[:-1]}ies": value for word, value in TENS.items()}
_MONTHS = "January February March April May June July August September October November December"
MONTHS = {word: value for value, word in enumerate(_MONTHS.split(), 1)}
SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
ORDINALS = {word: value for value, word in enumerate(_ORDINALS.split(), 1)} | {"twentieth": 20, "thirtieth": 30}
CENTURIES = (18, 19, 20)
YEARS = range(1900, 2100)
FRACTIONS = {"½": 0.5, "¼": 0.25, "¾": 0.75, "⅓": 1 / 3, "⅔": 2 / 3}
# A unit, the one it is counted in, and how many of that it is.
UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("mg", "milligram", "milligrams"), ("mg", 1.0)),
    **dict.fromkeys(("mcg", "µg", "μg", "ug", "microgram", "micrograms"), ("mg", 0.001)),
    **dict.fromkeys(("g", "gm", "gram", "grams"), ("mg", 1000.0)),
    **dict.fromkeys(("kg", "kilo", "kilos", "kilogram", "kilograms"), ("kg", 1.0)),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), ("lb", 1.0)),
    **dict.fromkeys(("ml", "cc", "milliliter", "milliliters", "millilitre", "millilitres"), ("ml", 1.0)),
    **dict.fromkeys(("l", "liter", "liters", "litre", "litres"), ("ml", 1000.0)),
    **dict.fromkeys(("mm", "millimeter", "millimeters"), ("mm", 1.0)),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), ("mm", 10.0)),
    **dict.fromkeys(("unit", "units", "iu", "u"), ("unit", 1.0)),
    **dict.fromkeys(("%", "percent", "per cent"), ("%", 1.0)),
    **dict.fromkeys(("mmhg",), ("mmhg", 1.0)),
    **dict.fromkeys(("meq",), ("meq", 1.0)),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), ("minute", 1.0)),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h"), ("hour", 1.0)),
    **dict.fromkeys(("day", "days"), ("day", 1.0)),
    **dict.fromkeys(("week", "weeks", "wk", "wks"), ("week", 1.0)),
    **dict.fromkeys(("month", "months", "mo"), ("month", 1.0)),
    **dict.fromkeys(("year", "years", "yr", "yrs", "y"), ("year", 1.0)),
    **dict.fromkeys(("pack", "packs"), ("pack", 1.0)),
    **dict.fromkeys(("tablet", "tablets", "tab", "tabs", "pill", "pills", "capsule", "capsules"), ("tablet", 1.0)),
}
# How often a day, in the words and abbreviations of prescriptions.
TIMES = (
    (r"q\.?\s?d\.?|o\.d\.|once (?:a|per) day|once daily|daily|every day|each day", 1),
    (r"b\.?\s?i\.?\s?d\.?|twice (?:a|per) day|twice daily|two times (?:a|per) day", 2),
    (r"t\.?\s?i\.?\s?d\.?|three times (?:a|per) day|three times daily", 3),
    (r"q\.?\s?i\.?\s?d\.?|four times (?:a|per) day|four times daily", 4),
)
TIMES_A_DAY = re.compile("|".join(rf"(?P<t{times}>(?<![\w.])(?:{words})(?!\w))" for words, times in TIMES), re.I)
OFTEN = re.compile(r"(?<!\w)(?P<times>\d{1,2})\s?x\s?(?:a|per|/)?\s?(?:day|daily|d)\b", re.I)  # `3x a day`
HOURLY = re.compile(r"(?<!\w)(?:every|q\.?)\s?(?P<hours>\d{1,2}|[a-z]+)[\s-]?(?:hours?|hrs?|h)\b", re.I)
HALVES = {"1/2": 0.5, "1/4": 0.25, "3/4": 0.75, "1/3": 1 / 3, "2/3": 2 / 3}
HALF = re.compile(r"(?<![\d/.])(?:(?P<whole>\d{1,2})[ -])?(?P<part>[123]/[234])(?![\d/])")
NUMBER = re.compile(
    r"(?<![\w.])(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<fraction>[½¼¾⅓⅔])?(?:st|nd|rd|th|['’]?s)?(?![\d])"
    r"|(?P<alone>[½¼¾⅓⅔])"
)
LISTED = re.compile(r"(?<![^\s.:;?!])\d{1,2}[.)]\s+(?=[A-Z])")  # `1. Aspirin. 2. Rest.`
WORD = re.compile(r"[a-zµμ%]+(?:\.[a-z]\.)*", re.I)
NEXT_WORD = re.compile(r"[\s-]*+([a-zµμ%]+)", re.I)
SPELT_UNIT = re.compile(r"[\s-]*+(m\s+g|mm\s+hg)\b", re.I)
BETWEEN_WORDS = re.compile(r"[\s-]*+(?:and\s+)?", re.I)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and the unit it is counted in; the unit is empty where none follows."""

    value: float
    unit: str = ""


def quantities(text: str) -> list[Quantity]:
    """Every number of the text with its unit, in one form; times a day come last."""
    plain = _without_list_numbers(text)
    amounts = [_with_unit(value, plain, end) for value, end in sorted(_numbers(plain), key=lambda pair: pair[1])]
    return amounts + [Quantity(times, "a day") for times in _times_a_day(plain)]


def _without_list_numbers(text: str) -> str:
    """The text with blanks in place of the numbers of list items, each at its beginning or behind a stop or line."""
    parts: list[str] = []
    done = 0
    for match in LISTED.finditer(text):
        begin = match.start()
        while begin > done and text[begin - 1].isspace():
            begin -= 1
        line = text.find("\n", begin, match.start())
        if begin and text[begin - 1] not in ".:;?!":
            if line < 0:
                continue
            begin = line + 1
        parts += [text[done:begin], " " * (match.end() - begin)]
        done = match.end()
    return "".join([*parts, text[done:]])


def supported(quantity: Quantity, source: Sequence[Quantity]) -> bool:
    """Whether the source has the number, with the same unit or one of the two without; a year also by two digits."""
    values = {quantity.value}
    if not quantity.unit and quantity.value in YEARS:
        values.add(quantity.value % 100)
    return any(
        abs(candidate.value - value) <= 1e-6 * max(1.0, abs(value))
        and (candidate.unit == quantity.unit or not candidate.unit or not quantity.unit)
        for candidate in source
        for value in values
    )


def _with_unit(value: float, text: str, end: int) -> Quantity:
    after = NEXT_WORD.match(text, end)
    unit = UNITS.get(after.group(1).casefold()) if after else None
    if after and unit is None and after.group(1).casefold() in ("m", "mm"):  # `M G`, as a dialogue spells it out
        spelt = SPELT_UNIT.match(text, end)
        unit = UNITS.get(re.sub(r"\s", "", spelt.group(1)).casefold()) if spelt else unit
    return Quantity(value) if unit is None else Quantity(value * unit[1], unit[0])


def _times_a_day(text: str) -> Iterator[float]:
    for match in TIMES_A_DAY.finditer(text):
        yield float(str(match.lastgroup)[1:])
    for match in OFTEN.finditer(text):
        yield float(match["times"])
    for match in HOURLY.finditer(text):
        hours = float(match["hours"]) if match["hours"].isdigit() else SMALL.get(match["hours"].casefold(), 0)
        if hours and 24 % hours == 0:
            yield 24 / hours


def _numbers(text: str) -> Iterator[tuple[float, int]]:
    """`(value, where it ends)` of numbers in digits and in words."""
    for match in HALF.finditer(text):
        if match["part"] in HALVES:
            yield float(match["whole"] or 0) + HALVES[match["part"]], match.end()
    for match in NUMBER.finditer(HALF.sub(_blank, text)):
        integer = float(match["digits"].replace(",", "")) if match["digits"] else 0.0
        part = match["fraction"] or match["alone"]
        yield integer + (FRACTIONS[part] if part else 0.0), match.end()
    yield from _in_words(text)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group()) if match["part"] in HALVES else match.group()


def _in_words(text: str) -> Iterator[tuple[float, int]]:
    total = current = 0
    end, begun = 0, False
    for match in WORD.finditer(text):
        word = match.group().casefold()
        if word == "and" and begun:
            continue
        joined = begun and BETWEEN_WORDS.fullmatch(text, end, match.start()) is not None
        if begun and not (joined and (word in SMALL or word in TENS or word in SCALES)):
            yield float(total + current), end
            total, current, begun = 0, 0, False
        if word in SMALL or word in TENS:
            value = SMALL.get(word, TENS.get(word, 0))
            if begun and current in CENTURIES and value >= 10:
                current, end = 100 * current, match.end()  # a year as it is said: `nineteen eighty four`
            elif begun and current % 100 and not (current % 10 == 0 and value < 10):
                yield float(total + current), end  # two numbers side by side: `nineteen eighty` is 19 and 80
                total = current = 0
            current += value
            end, begun = match.end(), True
        elif word in SCALES and begun:
            scale = SCALES[word]
            current = max(1, current) * scale
            if scale >= 1000:
                total, current = total + current, 0
            end = match.end()
        elif word in ORDINALS:
            yield float(ORDINALS[word]), match.end()
        elif word == "half":
            yield 0.5, match.end()
        elif word in DECADES:
            yield float(DECADES[word]), match.end()
        elif match.group() in MONTHS:
            yield float(MONTHS[match.group()]), match.end()
    if begun:
        yield float(total + current), end
