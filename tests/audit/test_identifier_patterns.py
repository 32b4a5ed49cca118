"""A pattern is tried only where it can begin, finds what a search of the text finds, and takes linear time."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_med.audit.deidentify import deidentified, gold_notes, load_finder
from lora_med.audit.identifiers import Identifier, find_identifiers, longest
from lora_med.audit.shapes.identifier_patterns import SHAPES, Places, Shape
from lora_med.data.record import Annotated, Span
from tests.growth import assert_linear

NUMBERED = [pytest.param(shape, id=f"{number}-{shape.kind}") for number, shape in enumerate(SHAPES)]
SAMPLES = {
    "EMAIL": ["ann.roe+x@mail.example.org"],
    "URL": ["https://example.org/a?b=1", "www.example.org"],
    "PHONE": ["+1 (617) 555-0199 x12", "555-0142", "pager: 4471", "0617 5551234", "x4471"],
    "ID": [
        "900-12-3456",
        "MRN: 0048213",
        "medical record number # A1234",
        "AB1234567",
        "specimen #S21-0042",
        "B12-3456",
    ],
    "DATE": [
        "2021-03-14",
        "3/14/2021",
        "March 14th, 2021",
        "14th of March 2021",
        "Mar-14-2021",
        "14-MAR-21",
        "the 14th of March",
        "May of last year",
        "seen: 3/14",
        "Monday 4 March",
        "04/2019",
    ],
    "AGE": ["93-year-old", "aged 97", "ninety-four years"],
    "LOCATION": ["14 Old Elm Street, Apt. 3", "MA 02139-1234", "SW1A 1AA", "lives alone in Oak Hill, MA 02139"],
    "HOSPITAL": ["St. Oak Valley Hospital", "admitted to the St. Oak General", "St. Anna's", "the Oak Hill clinic"],
    "NAME": [
        "Dr. Ann O'Neil-Roe",
        "Ann B. Roe, M.D.",
        "Patient name: Ann Roe, Bob Roe",
        "daughter, Ann Roe",
        "follow-up with: Ann Roe, Bob",
        "Ann Roe (daughter)",
        "Ann Roe reports",
        "Mr. Roe, Ann",
        "son Roe, Bob",
        "J. A. Okafor",
        "mister roe",
        "MRS. ROE",
        "Patient: Roe",
    ],
}
UNITS = (" ", "\t", "\n", "-", ".", ",", "'", "’", "_", "/", ":", "#", "(", "+", "@", "%", "a", "A", "Aa", "A ", "a ",
         "A-", "a-", "A.", "1", "1 ", "1-", "1.", "1/", "Aa ", "Aa-", "Aa, ", "1 A", "mrn ", "mrn-", "mrn:", "Dr ",
         "De ", "St. ", "the ", "The ", "on 1/", "é", "[", "www.", "a@", "@")  # fmt: skip


def searched(shape: Shape, text: str) -> list[tuple[int, int]]:
    value = "value" if "value" in shape.pattern.groupindex else 0
    return [match.span(value) for match in shape.pattern.finditer(text)]


def found(shape: Shape, text: str) -> list[tuple[int, int]]:
    return list(shape.spans(Places(text)))


def run_of(head: str, unit: str, size: int) -> str:
    return f"{head}{unit * (size // len(unit))}!"


def worst_texts(kind: str) -> Iterator[tuple[str, str]]:
    """`(beginning, unit)`: a beginning of something that the kind finds, then what is repeated behind it."""
    for sample in SAMPLES[kind]:
        for end in [0, *(match.end() for match in re.finditer(r"\w+|\W", sample))]:
            yield from ((sample[:end], unit) for unit in {*UNITS, sample[:end], f"{sample[:end]} "} - {""})


@pytest.mark.parametrize("kind", SAMPLES)
def test_every_pattern_takes_linear_time_on_what_it_reads_longest(kind: str) -> None:
    """All beginnings with all runs are tried once; of each pattern the slowest are measured as they grow."""
    spent: dict[int, list[tuple[float, str, str]]] = {n: [] for n, shape in enumerate(SHAPES) if shape.kind == kind}
    for head, unit in dict.fromkeys(worst_texts(kind)):
        places = Places(run_of(head, unit, 4000))
        for number, times in spent.items():
            begun = time.process_time()
            list(SHAPES[number].spans(places))
            times.append((time.process_time() - begun, head, unit))
    for number, times in spent.items():
        for _, head, unit in sorted(times, reverse=True)[:2]:
            assert_linear(partial(found, SHAPES[number]), partial(run_of, head, unit))


@pytest.mark.parametrize(
    "head", ["MRN", "account #", "Dr.", "Ann", "on:", "call", "14", "14 Oak", "St.", "born in", "A"]
)
def test_a_run_of_blanks_takes_linear_time(head: str) -> None:
    assert_linear(find_identifiers, lambda size: head + " " * size + "x", 40_000)
    assert_linear(find_identifiers, lambda size: (head + " " * 30) * (size // 30) + "x")


@pytest.mark.parametrize("unit", ["Dr. Roe seen 3/14/2021. ", "[NAME] ", "Dr. Aab. Aab ", "a@b.de ", "Mr. A'b'c'd "])
def test_a_text_full_of_identifiers_takes_linear_time(unit: str) -> None:
    assert_linear(find_identifiers, lambda size: unit * (size // len(unit)), 10_000)


def test_a_text_of_ever_new_names_takes_linear_time() -> None:
    def names(size: int) -> str:
        letters = ("".join(chr(97 + int(digit)) for digit in str(number)) for number in range(size // 20))
        return " ".join(f"Dr. {word.capitalize()}xx came; {word}." for word in letters)

    assert_linear(find_identifiers, names, 20_000)


def test_spans_of_a_long_text_move_in_linear_time() -> None:
    def clean(text: str) -> object:
        spans = tuple(Span(start, start + 3, "T", "iro") for start in range(0, len(text) - 24, 24))
        return deidentified(Annotated("u", "g", "custom", text, spans), find_identifiers, b"s")

    assert_linear(clean, lambda size: "iron by 3/14/2021 ok.   " * (size // 24), 10_000)


def test_a_megabyte_of_ordinary_notes_takes_three_seconds() -> None:
    notes = "\n\n".join(note["text"] for note in gold_notes())
    text = (notes * (1_000_000 // len(notes) + 1))[:1_000_000]
    begun = time.process_time()
    identifiers = find_identifiers(text)
    assert time.process_time() - begun < 3
    assert len(identifiers) > 5000


def test_a_megabyte_takes_presidio_and_us_no_longer_than_linear() -> None:
    pytest.importorskip("presidio_analyzer")
    notes = "\n\n".join(note["text"] for note in gold_notes())
    assert_linear(load_finder(), lambda size: (notes * (size // len(notes) + 1))[:size], 50_000)


@pytest.mark.parametrize("shape", NUMBERED)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_pattern_is_found_wherever_a_search_finds_it(shape: Shape, data: st.DataObject) -> None:
    """Texts made from the pattern itself, next to whatever may stand there."""
    matching = st.from_regex(shape.pattern)
    beside = st.sampled_from(["", " ", "\n", "a", "1", "_", "é", "-", ".", ", ", "(", "+", "ſ", "K"])
    pieces = data.draw(st.lists(st.tuples(beside, matching), min_size=1, max_size=3))
    text = "".join(head + piece for head, piece in pieces)
    for each in (text, text.upper(), text.replace("s", "ſ").replace("k", "\u212a").replace("i", "ı")):
        assert found(shape, each) == searched(shape, each)


def test_every_pattern_finds_a_sample_of_its_kind() -> None:
    text = "\n".join(f"x {sample} y\n{sample}" for samples in SAMPLES.values() for sample in samples)
    assert [shape for shape in SHAPES if not found(shape, text)] == []
    assert all(found(shape, text) == searched(shape, text) for shape in SHAPES)


def texts_of_tests() -> list[str]:
    """The invented notes, and everything in quotes in the tests of this folder."""
    code = "\n".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))
    return [note["text"] for note in gold_notes()] + re.findall(r'"((?:[^"\\\n]|\\.)*)"', code)


def test_notes_and_scrambled_notes_hold_the_same_as_a_search_finds() -> None:
    rng = random.Random(7)
    for text in texts_of_tests():
        words = re.split(r"( )", text)
        rng.shuffle(words)
        for each in (text, "".join(words), text.upper(), text.replace(" ", "  ")):
            places = Places(each)
            for shape in SHAPES:
                assert list(shape.spans(places)) == searched(shape, each), json.dumps(each)


def naive_longest(identifiers: list[Identifier]) -> list[Identifier]:
    retained: list[Identifier] = []
    for one in sorted(identifiers, key=lambda one: (one.start - one.end, one.start)):
        if all(one.end <= other.start or other.end <= one.start for other in retained):
            retained.append(one)
    return sorted(retained, key=lambda one: one.start)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=12))
@settings(deadline=None, derandomize=True)
def test_the_longest_are_those_that_comparing_each_with_each_retains(ranges: list[tuple[int, int]]) -> None:
    identifiers = [Identifier(start, start + size, str(number)) for number, (start, size) in enumerate(ranges)]
    assert longest(identifiers) == naive_longest(identifiers)
