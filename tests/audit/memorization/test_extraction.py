"""Extraction on rows made by hand: what follows a beginning, what the base writes too, what is a template."""

from __future__ import annotations

import hashlib

import numpy as np

from lora_med.audit.memorization.extraction import (
    METADATA,
    RUNNING,
    SharedText,
    Written,
    counts,
    extracts,
    longest_run,
    own_extracts,
    patients,
)


def row(
    group: str,
    first_token: int,
    length: int = 80,
    *,
    adapter: tuple[int, int] = (0, 0),
    base: tuple[int, int] = (0, 0),
    known: int = 0,
    lead: int = 0,
) -> Written:
    """A row of consecutive token ids; adapter and base have the right first choice from a token to another."""
    flags = []
    for start, end in (adapter, base):
        own = np.zeros(length, dtype=bool)
        own[start:end] = True
        flags.append(own)
    tokens, offsets = tuple(range(first_token, first_token + length)), tuple(range(1, length + 1))
    return Written(f"{group}:note", group, tokens, offsets, known, *flags, lead=lead)


def given(rows: list[Written]) -> set[str]:
    return {each.given for each in extracts(rows, SharedText(rows), 3)}


def test_what_follows_a_beginning_is_written_if_each_token_is_the_first_choice() -> None:
    assert given([row("a", 0, adapter=(16, 48))]) == {"16 tokens", RUNNING}
    assert given([row("a", 0, adapter=(8, 64))]) == {"8 tokens", "16 tokens", "32 tokens", RUNNING}
    assert given([row("a", 0, adapter=(8, 39))]) == set()  # 31 tokens, and 32 have to follow
    assert given([row("a", 0, adapter=(9, 41))]) == {RUNNING}


def test_the_rest_of_a_short_text_counts_from_16_tokens() -> None:
    assert given([row("a", 0, 32, adapter=(16, 32))]) == {"16 tokens"}
    assert given([row("a", 0, 31, adapter=(16, 31))]) == set()


def test_metadata_is_the_title_of_a_text_or_the_prompt() -> None:
    assert given([row("a", 0, adapter=(10, 42), known=10)]) == {METADATA, RUNNING}
    assert METADATA in given([row("a", 0, adapter=(0, 32))])


def test_a_text_without_a_start_token_counts_its_first_token_too() -> None:
    found = extracts([row("a", 0, adapter=(7, 39), lead=1)], SharedText([]), 3)
    assert [each.given for each in found] == ["8 tokens", RUNNING]
    assert found[0].offset == 8  # the ninth token of the row, counted from 0


def test_what_the_base_writes_too_is_not_counted() -> None:
    rows = [row("a", 0, adapter=(8, 40), base=(0, 60))]
    found = extracts(rows, SharedText(rows), 3)
    assert [(each.given, each.stage) for each in found] == [("8 tokens", "verbatim")]
    assert patients(found) == 0


def test_text_that_three_others_share_is_a_template_and_text_of_two_is_not() -> None:
    def written(others: int) -> int:
        rows = [row("a", 0, adapter=(8, 40)), *(row(f"b{number}", 0) for number in range(others))]
        return patients(extracts(rows, SharedText(rows), 3))

    assert (written(2), written(3)) == (1, 0)


def test_other_notes_of_the_same_patient_make_no_template() -> None:
    rows = [row("a", 0, adapter=(8, 40)), *(row("a", 0) for _ in range(5))]
    assert patients(extracts(rows, SharedText(rows), 3)) == 1


def test_eight_tokens_of_its_own_inside_a_template_are_enough() -> None:
    mine = row("a", 0, adapter=(8, 40))
    others = []
    for number in range(3):  # they share the tokens 8 to 31 of the 32 that follow
        tokens = (*range(32), *range(1000 + 100 * number, 1048 + 100 * number))
        others.append(Written(f"b{number}", f"b{number}", tokens, mine.offsets, 0, mine.by_base, mine.by_base))
    rows = [mine, *others]
    assert [each.stage for each in extracts(rows, SharedText(rows), 3)] == ["not_a_template", "not_a_template"]


def test_the_counts_are_of_patients_and_not_of_rows() -> None:
    rows = [row("a", 0, adapter=(8, 40)), row("a", 500, adapter=(8, 40)), row("b", 1000), row("c", 2000, length=20)]
    table = {line["given"]: line for line in counts(rows, extracts(rows, SharedText(rows), 3))}
    assert (table["8 tokens"]["verbatim"], table["8 tokens"]["tried"]) == (1, 2)  # c is too short to go on
    assert (table[METADATA]["tried"], table[RUNNING]["tried"]) == (3, 2)
    assert table["8 tokens"]["share"]["value"] == 0.5


def test_an_extract_shows_a_hash_in_place_of_its_text() -> None:
    rows = [row("a", 0, adapter=(8, 40))]
    (each, *_) = own_extracts(extracts(rows, SharedText(rows), 3))
    shown = each.as_json("sha256:0", "p", "the number is 41")
    assert shown == {
        "uid": "sha256:0",
        "group": "p",
        "given": "8 tokens",
        "offset": 9,
        "tokens": 32,
        "sha256": hashlib.sha256(b"the number is 41").hexdigest()[:16],
    }


def test_the_longest_run_is_found() -> None:
    assert longest_run(np.array([1, 0, 1, 1, 1, 0, 1, 1], dtype=bool)) == (2, 5)
    assert longest_run(np.zeros(3, dtype=bool)) == (0, 0)
