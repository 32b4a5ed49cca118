"""Mentions placed in their text: the counts that tools use, proven by the mentions' own texts; what does not fit."""

from __future__ import annotations

import pytest

from lora_med.data.formats.entities.mentions import Mention, laid_out, place_mentions
from lora_med.data.record import Span

EMOJI = "😷 fever, α-rash."  # one character of two UTF-16 units and four bytes; α is two bytes
RASH = "α-rash"


def mention(start: int, end: int, text: str | None = None, kind: str = "D") -> Mention:
    return Mention(kind, ((start, end),), text)


@pytest.mark.parametrize(
    ("fever", "rash"),
    [((2, 7), (9, 15)), ((3, 8), (10, 16)), ((5, 10), (12, 19))],
    ids=["characters", "UTF-16 units", "UTF-8 bytes"],
)
def test_the_texts_of_mentions_prove_how_their_offsets_count(fever: tuple[int, int], rash: tuple[int, int]) -> None:
    placed = place_mentions(EMOJI, [mention(*fever, "fever"), mention(*rash, RASH)])
    assert placed.spans == (Span(2, 7, "D", "fever"), Span(9, 15, "D", RASH))
    assert placed.unfit == ()


def test_without_their_texts_offsets_count_characters() -> None:
    assert place_mentions(EMOJI, [mention(3, 8)]).spans == (Span(3, 8, "D", "ever,"),)


def test_one_proven_mention_tells_the_count_of_those_without_a_text() -> None:
    placed = place_mentions(EMOJI, [mention(3, 8, "fever"), mention(10, 16)])
    assert [span.text for span in placed.spans] == ["fever", RASH]


def test_mentions_that_prove_two_counts_prove_none() -> None:
    placed = place_mentions(EMOJI, [mention(2, 7, "fever"), mention(10, 16, RASH)])
    assert [span.text for span in placed.spans] == ["fever"]
    assert placed.unfit == ("text_differs",)


def test_what_fits_every_count_proves_none_but_characters() -> None:
    placed = place_mentions("fever 😷 rash", [mention(0, 5, "fever"), mention(8, 12), mention(0, 5, "cough")])
    assert [span.text for span in placed.spans] == ["fever", "rash"]


def test_each_windows_line_end_before_a_mention_counts() -> None:
    for start in (8, 6):
        assert place_mentions("A.\r\nB.\r\nRash.", [mention(start, start + 4, "Rash")]).spans == (
            Span(6, 10, "D", "Rash"),
        )
    mixed = place_mentions("A.\r\nB.\nRash.", [mention(7, 11, "Rash")])
    assert mixed.spans == (Span(6, 10, "D", "Rash"),)


def test_windows_line_ends_count_as_two_or_one_and_become_one() -> None:
    for start in (8, 7):
        placed = place_mentions("Fever.\r\nRash.", [mention(start, start + 4, "Rash")])
        assert (placed.text, placed.spans) == ("Fever.\nRash.", (Span(7, 11, "D", "Rash"),))
    lost_by_a_parser = place_mentions("Fever.\nRash.", [mention(8, 12, "Rash")])
    assert lost_by_a_parser.spans == (Span(7, 11, "D", "Rash"),)


def test_offsets_count_from_one_only_where_that_may_be() -> None:
    found = [mention(1, 6, "Fever"), mention(7, 11, "soon")]
    assert place_mentions("Fever soon", found, from_one=True).spans == (
        Span(0, 5, "D", "Fever"),
        Span(6, 10, "D", "soon"),
    )
    assert place_mentions("Fever soon", found).spans == ()


def test_each_mention_that_does_not_fit_has_a_reason() -> None:
    found = [
        mention(0, 5, "Fever"),
        mention(0, 5, "fever"),
        mention(5, 5),
        mention(4, 2),
        mention(5, 6),
        mention(0, 99),
        mention(0, 5, kind=" "),
        Mention("D", ()),
        Mention("D", ((0, 5), (10, 14))),
    ]
    placed = place_mentions("Fever and rash", found)
    assert placed.spans == (Span(0, 5, "D", "Fever"),)
    assert placed.unfit == (
        *("text_differs", "empty_mention", "empty_mention", "empty_mention", "outside_text", "no_type", "no_offsets"),
        "discontinuous",
    )


def test_pieces_with_only_blanks_between_are_one_span() -> None:
    placed = place_mentions(
        "acute\n renal  failure", [Mention("D", ((7, 12), (0, 5), (14, 21)), "acute renal failure")]
    )
    assert placed.spans == (Span(0, 21, "D", "acute\n renal  failure"),)


def test_a_mention_stated_twice_is_one_span() -> None:
    assert len(place_mentions("Fever", [mention(0, 5), mention(0, 5)]).spans) == 1


def test_parts_are_laid_out_at_their_offsets_in_any_order() -> None:
    assert laid_out([(7, "Two"), (0, "One α")], 10) == "One α  Two"
    assert laid_out([(7, "Two"), (0, "One α")], 10, 2) == "One α Two"  # α is two bytes
    assert laid_out([(0, "One"), (2, "Two")], 10) is None
    assert laid_out([(0, "One"), (99, "Two")], 10) is None
