"""Numbers of medical text in one form; every expectation worked out by hand."""

from __future__ import annotations

import pytest

from lora_med.metrics.quantities import Quantity, quantities, supported


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000 mg", [(1000, "mg")]),
        ("1000 milligrams", [(1000, "mg")]),
        ("0.5 g", [(500, "mg")]),
        ("250 mcg, 250 µg", [(0.25, "mg"), (0.25, "mg")]),
        (".5 cc", [(0.5, "ml")]),
        ("2½ packs", [(2.5, "pack")]),
        ("½ tablet", [(0.5, "tablet")]),
        ("half a pack", [(0.5, "")]),
        ("twenty six", [(26, "")]),
        ("fifty-two years", [(52, "year")]),
        ("one hundred and twenty over eighty", [(120, ""), (80, "")]),
        ("two thousand nine", [(2009, "")]),
        ("nineteen eighty four", [(1984, "")]),
        ("two thirty", [(2, ""), (30, "")]),
        ("5th, fifth", [(5, ""), (5, "")]),
        ("in her 80s and eighties", [(80, ""), (80, "")]),
        ("04/15/2005", [(4, ""), (15, ""), (2005, "")]),
        ("April fifteen", [(4, ""), (15, "")]),
        ("forty M G", [(40, "mg")]),
        ("120/80 mmHg", [(120, ""), (80, "mmhg")]),
        ("7.2%", [(7.2, "%")]),
        ("81 mg b.i.d.", [(81, "mg"), (2, "a day")]),
        ("81 mg twice daily", [(81, "mg"), (2, "a day")]),
        ("t.i.d.", [(3, "a day")]),
        ("2 1/2 tablets", [(2.5, "tablet")]),
        ("1/2 tablet", [(0.5, "tablet")]),
        ("120/80, 2/4", [(120, ""), (80, ""), (2, ""), (4, "")]),
        ("every eight hours", [(8, "hour"), (3, "a day")]),
        ("q8h", [(3, "a day")]),
        ("3x a day", [(3, ""), (3, "a day")]),
        ("1. Aspirin. 2. Rest.", []),
        ("a 26-year-old", [(26, "year")]),
        ("B12 and T4", []),
        ("no numbers, someone", []),
    ],
)
def test_numbers_are_read_in_one_form(text: str, expected: list[tuple[float, str]]) -> None:
    found = quantities(text)
    assert [one.unit for one in found] == [unit for _, unit in expected]
    assert [one.value for one in found] == pytest.approx([value for value, _ in expected])


@pytest.mark.parametrize(
    ("said", "source", "holds"),
    [
        (Quantity(40, "mg"), "forty M G once a day", True),
        (Quantity(40, "mg"), "forty of them", True),
        (Quantity(40, "mg"), "40 ml", False),
        (Quantity(41, "mg"), "40 mg", False),
        (Quantity(1992), "back in ninety two", True),
        (Quantity(2, "a day"), "one tid", False),
        (Quantity(2, "a day"), "b.i.d.", True),
        (Quantity(0.5), "half a tablet", True),
    ],
)
def test_support_takes_number_and_unit(said: Quantity, source: str, holds: bool) -> None:
    assert supported(said, quantities(source)) == holds
