"""Spans to tags of tokens and back: by hand on whole words, against seqeval on random tags, on published corpora."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from lora_med.data.outcome import ReadOptions
from lora_med.data.record import Annotated, Pair, Span
from lora_med.data.sources import bc5cdr, ncbi_disease
from lora_med.errors import DataError, SettingsError
from lora_med.prompts.entity_tags import (
    UNTAGGED,
    Piece,
    TagCoverage,
    cut_pieces,
    read_tags,
    recovered_mentions,
    tag_labels,
    whole_words,
    write_tags,
)
from tests.data.real_files import REAL, needs_real
from tests.tiny import make_tokenizer

LABELS = ("O", "B-Chemical", "I-Chemical", "B-Disease", "I-Disease")
TEXT = "No zinc, no colon cancer here"


def tag_coverage(records: Sequence[Annotated], tokenizer: Any, labels: Sequence[str], max_length: int) -> TagCoverage:
    recovered = 0
    for record in records:
        pieces = cut_pieces(record, tokenizer, max_length)
        tags = [write_tags(piece, record.spans, labels) for piece in pieces]
        recovered += recovered_mentions(record, pieces, tags, labels)
    return TagCoverage(sum(len(set(record.spans)) for record in records), recovered)


def annotated(text: str, *found: tuple[int, int, str]) -> Annotated:
    return Annotated("1", "g", "s", text, tuple(Span(a, b, kind, text[a:b]) for a, b, kind in found))


def words(text: str) -> Piece:
    """Each word a token of its own, a blank before it counted in, between two special tokens."""
    places, start = [(0, 0)], 0
    for word in text.split():
        start = text.index(word, start)
        places.append((start, start + len(word)))
        start += len(word)
    return Piece("1", tuple(range(len(places) + 1)), (*places, (0, 0)))


def test_labels_are_outside_and_two_for_each_type() -> None:
    assert tag_labels([annotated(TEXT, (3, 7, "Chemical"), (12, 24, "Disease"))]) == LABELS
    with pytest.raises(DataError, match="no record has"):
        tag_labels([annotated(TEXT)])
    with pytest.raises(SettingsError, match="gives a Pair"):
        tag_labels([Pair("p", "p", "s", "in", "out")])


def test_tags_are_those_written_by_hand() -> None:
    piece = words(TEXT)  # [special] No zinc, no colon cancer here [special]
    spans = annotated(TEXT, (3, 7, "Chemical"), (12, 24, "Disease")).spans
    tags = write_tags(piece, spans, LABELS)
    assert tags == [UNTAGGED, 0, 1, 0, 3, 4, 0, UNTAGGED]
    found = [(span.start, span.end, span.type, span.text) for span in read_tags(piece, tags, LABELS, TEXT)]
    # The comma is in the token of zinc, so that mention comes back wider; the two words of the other come back whole.
    assert found == [(3, 8, "Chemical", "zinc,"), (12, 24, "Disease", "colon cancer")]


def test_of_mentions_that_share_a_token_the_longer_is_kept() -> None:
    spans = annotated(TEXT, (12, 17, "Chemical"), (12, 24, "Disease"), (18, 24, "Disease")).spans
    assert write_tags(words(TEXT), spans, LABELS) == [UNTAGGED, 0, 0, 0, 3, 4, 0, UNTAGGED]


def test_a_type_without_a_label_is_refused_without_its_text() -> None:
    with pytest.raises(DataError, match="type 'Gene'") as caught:
        write_tags(words(TEXT), annotated(TEXT, (3, 7, "Gene")).spans, LABELS)
    assert "zinc" not in str(caught.value)


def test_neighbors_of_one_type_stay_two_mentions(tokenizer: Any) -> None:
    record = annotated("flugout", (0, 3, "Disease"), (3, 7, "Disease"))
    (piece,) = cut_pieces(record, tokenizer, 64)
    assert read_tags(piece, write_tags(piece, record.spans, LABELS), LABELS, record.text) == list(record.spans)


def test_reading_random_tags_agrees_with_seqeval() -> None:
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    draw = random.Random(7)
    text = " ".join(f"w{number}" for number in range(40))
    piece = words(text)
    for _ in range(200):
        tags = [draw.randrange(len(LABELS)) for _ in range(40)]
        names = [LABELS[tag] for tag in tags]
        expected = {
            (piece.offsets[first + 1][0], piece.offsets[last + 1][1], kind)
            for kind, first, last in labeling.get_entities(names)
        }
        found = read_tags(piece, [1, *tags, 1], LABELS, text)
        assert {(span.start, span.end, span.type) for span in found} == expected
        assert len(found) == len(expected)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()  # a byte is a token, BOS before the text


def test_a_long_text_is_cut_behind_a_sentence_else_a_blank_else_anywhere(tokenizer: Any) -> None:
    record = annotated("One two. Three four five sixseveneight βeta")
    pieces = cut_pieces(record, tokenizer, 13)  # BOS and 12 bytes
    texts = [record.text[min(a for a, b in p.offsets if a < b) : max(b for _, b in p.offsets)] for p in pieces]
    assert texts == ["One two.", "Three four", "five", "sixseveneigh", "t βeta"]
    assert all(len(piece.input_ids) <= 13 and piece.input_ids[0] == 1 for piece in pieces)
    whole = [offset for piece in pieces for offset in piece.offsets if offset[0] < offset[1]]
    assert [n for n, char in enumerate(record.text) if not char.isspace()] == sorted({a for a, _ in whole})
    with pytest.raises(SettingsError, match="no space"):
        cut_pieces(record, tokenizer, 1)


def test_what_tags_cannot_say_is_counted(tokenizer: Any) -> None:
    record = annotated("colon cancer. flu", (0, 12, "Disease"), (6, 12, "Disease"), (14, 17, "Disease"))
    coverage = tag_coverage([record], tokenizer, LABELS, 64)
    assert (coverage.mentions, coverage.recovered) == (3, 2)  # the nested one is lost
    plain = annotated(record.text, (0, 12, "Disease"), (14, 17, "Disease"))
    assert tag_coverage([plain], tokenizer, LABELS, 9).recovered == 1  # the cut goes through colon cancer


@needs_real
@pytest.mark.parametrize(
    ("module", "name", "mentions", "kept"),
    [
        (bc5cdr, "bc5cdr/CDR_DevelopmentSet.PubTator.txt", 9591, 0.98),
        (ncbi_disease, "ncbi_disease/original-data/devel/NCBIdevelopset_corpus.txt", 787, 0.98),
    ],
)
def test_tags_keep_nearly_all_published_mentions(
    module: Any, name: str, mentions: int, kept: float, tokenizer: Any
) -> None:
    records = [one for one in module.read([REAL / name], ReadOptions()) if isinstance(one, Annotated)]
    coverage = tag_coverage(records, tokenizer, tag_labels(records), 100_000)
    assert coverage.mentions == mentions
    assert kept < coverage.recovered / coverage.mentions <= 1


@pytest.mark.parametrize(
    ("found", "text", "expected"),
    [
        ([(1, 13, "C")], "Phenobarbital", [(0, 13, "C")]),
        ([(0, 4, "D"), (6, 23, "D")], "tricuspid regurgitation", [(0, 23, "D")]),
        ([(0, 3, "D"), (3, 11, "C")], "paracetamol", [(0, 11, "C")]),
        ([(0, 3, "C")], "5-HT receptor", [(0, 4, "C")]),
        ([(0, 1, "C"), (2, 4, "C")], "5-HT receptor", [(0, 1, "C"), (2, 4, "C")]),
        ([(4, 7, "D"), (9, 12, "D")], "bad gout pain.", [(4, 8, "D"), (9, 13, "D")]),
        ([(0, 4, "D")], "gout, pain", [(0, 4, "D")]),
        ([(2, 4, "D")], "患者发热两天", [(2, 4, "D")]),
        ([], "gout", []),
    ],
)
def test_mentions_are_widened_to_whole_words(
    found: list[tuple[int, int, str]], text: str, expected: list[tuple[int, int, str]]
) -> None:
    spans = [Span(start, end, kind, text[start:end]) for start, end, kind in found]
    wide = whole_words(spans, text)
    assert [(span.start, span.end, span.type) for span in wide] == expected
    assert all(span.text == text[span.start : span.end] for span in wide)
    assert whole_words(wide, text) == wide
