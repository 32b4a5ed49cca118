"""Entity scores: by hand, and as nervaluate and seqeval count the same spans."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lora_med.data.outcome import ReadOptions
from lora_med.data.record import Annotated
from lora_med.data.sources import bc5cdr
from lora_med.errors import DataError
from lora_med.metrics.spans import (
    Counts,
    Mention,
    collapsed,
    f1_of_counts,
    hallucinated_rate,
    invalid_rate,
    macro_f1,
    micro,
    relaxed,
    strict,
    unseen,
)
from tests.data.real_files import REAL, needs_real

TYPES = ("Chemical", "Disease", "Gene")


def at(start: int, end: int, kind: str = "Disease", text: str = "", document: str = "d") -> Mention:
    return Mention(document, kind, text or f"{start}-{end}", (start, end))


GOLD = [at(0, 5, "Chemical", "zinc"), at(10, 20, text="flu"), at(30, 35, text="ache"), at(40, 44, text="flu")]
PREDICTED = [
    at(0, 5, "Chemical", "zinc"),  # right
    at(10, 18, text="fl"),  # overlaps the first disease
    at(30, 35, "Chemical", "ache"),  # right place, wrong type
    at(40, 44, text="flu"),  # right
    Mention("d", "Disease", "gout", None),  # stands nowhere
]


def test_strict_counts_need_document_offsets_and_type() -> None:
    found = strict(GOLD, PREDICTED)
    assert found == {"Chemical": Counts(1, 1, 2), "Disease": Counts(1, 3, 3)}
    both = micro(found)
    assert (both.precision, both.recall, both.f1) == (pytest.approx(2 / 5), pytest.approx(2 / 4), pytest.approx(4 / 9))
    assert macro_f1(found) == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert strict(GOLD, [replace(one, document="other") for one in PREDICTED])["Disease"].hits == 0


def test_macro_f1_over_given_types_counts_an_absent_one_as_zero_and_leaves_others_out() -> None:
    found = strict(GOLD, PREDICTED)
    assert macro_f1(found, ["Chemical", "Gene"]) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1(found, ["Chemical"]) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="nothing to average"):
        macro_f1({})


def test_relaxed_counts_want_one_shared_character_and_the_type() -> None:
    assert relaxed(GOLD, PREDICTED) == {"Chemical": Counts(1, 1, 2), "Disease": Counts(2, 3, 3)}
    assert relaxed([at(0, 5)], [at(5, 8)])["Disease"].hits == 0  # ends are exclusive: these only touch
    assert relaxed([at(0, 5)], [at(4, 8)])["Disease"].hits == 1


def test_relaxed_prediction_takes_one_gold_mention_the_nearest() -> None:
    assert relaxed([at(0, 5), at(6, 10)], [at(0, 10)]) == {"Disease": Counts(1, 2, 1)}
    assert relaxed([at(0, 10)], [at(0, 4), at(5, 10)]) == {"Disease": Counts(1, 1, 2)}
    # (0, 9) is nearer to the second; had it taken the first, nothing would be left for (1, 2).
    assert relaxed([at(0, 3), at(2, 10)], [at(0, 9), at(1, 2)])["Disease"].hits == 2


def test_equal_mentions_count_once_and_those_without_offsets_each() -> None:
    lost = Mention("d", "Disease", "gout", None)
    assert strict([at(0, 5), at(0, 5)], [at(0, 5), at(0, 5), lost, lost]) == {"Disease": Counts(1, 1, 3)}


def test_collapsed_counts_a_text_once_a_document() -> None:
    assert collapsed(GOLD, PREDICTED) == {"Chemical": Counts(1, 1, 2), "Disease": Counts(1, 2, 3)}
    twice = [at(0, 3, text="flu", document="a"), at(0, 3, text="flu", document="b")]
    assert collapsed(twice, twice) == {"Disease": Counts(2, 2, 2)}


def test_unseen_leaves_out_what_training_had_whatever_its_case() -> None:
    seen = {"flu"}
    gold = [at(0, 3, text="Flu"), at(5, 9, text="gout")]
    assert strict(unseen(gold, seen), unseen([*gold, Mention("d", "Disease", "FLU", None)], seen)) == {
        "Disease": Counts(1, 1, 1)
    }


def test_rates_are_shares_of_predictions_and_of_answers() -> None:
    assert hallucinated_rate(PREDICTED) == pytest.approx(1 / 5)
    assert hallucinated_rate([]) == 0.0
    assert invalid_rate([True, False, False, True]) == pytest.approx(2 / 4)
    with pytest.raises(DataError, match="no answers"):
        invalid_rate([])


def test_nothing_found_and_nothing_there_scores_zero() -> None:
    nothing = Counts(0, 0, 0)
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)
    many = f1_of_counts(np.array([[0.0, 0, 0], [1, 2, 2], [3, 3, 3]]))
    assert many.tolist() == [0.0, 0.5, 1.0]


def test_gold_without_offsets_is_refused_by_document_and_not_by_text() -> None:
    with pytest.raises(DataError, match="1 of 2 gold") as caught:
        strict([at(0, 5), Mention("d7", "Disease", "secret", None)], [])
    assert "d7" in str(caught.value) and "secret" not in str(caught.value)


def _flat(random_: random.Random, document: str, length: int = 60) -> list[Mention]:
    """Mentions of a document that do not overlap."""
    found, place = [], random_.randrange(4)
    while place < length:
        end = place + random_.randrange(1, 7)
        if random_.random() < 0.7:
            found.append(at(place, end, random_.choice(TYPES), document=document))
        place = end + random_.randrange(4)
    return found


def _shaken(random_: random.Random, gold: Sequence[Mention]) -> list[Mention]:
    """Some of the gold mentions right, some with other ends, some of another type, some dropped; none overlap."""
    found: list[Mention] = []
    floor = 0
    for one in gold:
        start, end = one.offsets or (0, 0)
        start, end = max(floor, start + random_.choice((0, 0, 0, -2, 1))), end + random_.choice((0, 0, 0, -1, 2))
        if start < end and random_.random() < 0.8:
            found.append(at(start, end, random_.choice((one.type, one.type, *TYPES)), document=one.document))
            floor = end
    return found


def _documents(seed: int, count: int = 40) -> tuple[list[list[Mention]], list[list[Mention]]]:
    random_ = random.Random(seed)
    gold = [_flat(random_, str(number)) for number in range(count)]
    return gold, [_shaken(random_, one) for one in gold]


def _inclusive(documents: Sequence[Sequence[Mention]]) -> list[list[dict[str, object]]]:
    return [
        [{"label": one.type, "start": one.offsets[0], "end": one.offsets[1] - 1} for one in document if one.offsets]
        for document in documents
    ]


def _all(documents: Sequence[Sequence[Mention]]) -> list[Mention]:
    return [one for document in documents for one in document]


@pytest.mark.parametrize("seed", range(8))
def test_flat_spans_score_as_nervaluate_scores_them(seed: int) -> None:
    nervaluate = pytest.importorskip("nervaluate")
    gold, predicted = _documents(seed)
    theirs = nervaluate.Evaluator(_inclusive(gold), _inclusive(predicted), tags=list(TYPES), loader="dict").evaluate()
    ours, loose = strict(_all(gold), _all(predicted)), relaxed(_all(gold), _all(predicted))
    whole = theirs["overall"]["strict"]
    assert 0.1 < micro(ours).f1 < 0.9
    assert micro(ours).hits == whole.correct
    assert (micro(ours).precision, micro(ours).recall) == (pytest.approx(whole.precision), pytest.approx(whole.recall))
    for kind in TYPES:
        assert ours[kind].f1 == pytest.approx(theirs["entities"][kind]["strict"].f1)
        assert loose[kind].hits == theirs["entities"][kind]["ent_type"].correct
        assert loose[kind].f1 == pytest.approx(theirs["entities"][kind]["ent_type"].f1)


@pytest.mark.parametrize("seed", range(8))
def test_nested_spans_score_relaxed_as_nervaluate_scores_each_type(seed: int) -> None:
    nervaluate = pytest.importorskip("nervaluate")
    random_ = random.Random(seed)
    sides = [
        [
            sorted({at(s, s + random_.randrange(1, 9), random_.choice(TYPES)) for s in random_.choices(range(40), k=9)},
                   key=lambda one: (one.offsets, one.type))
            for _ in range(30)
        ]
        for _ in range(2)
    ]  # fmt: skip
    gold, predicted = ([[replace(one, document=str(n)) for one in d] for n, d in enumerate(side)] for side in sides)
    theirs = nervaluate.Evaluator(_inclusive(gold), _inclusive(predicted), tags=list(TYPES), loader="dict").evaluate()
    ours, loose = strict(_all(gold), _all(predicted)), relaxed(_all(gold), _all(predicted))
    for kind in TYPES:
        assert loose[kind].hits == theirs["entities"][kind]["ent_type"].correct
        # There an overlapping prediction may use up a gold mention that a later one hits exactly; here it may not.
        assert ours[kind].hits >= theirs["entities"][kind]["strict"].correct
        assert loose[kind].hits >= ours[kind].hits


def test_an_exact_prediction_is_right_whatever_came_before_it_unlike_in_nervaluate() -> None:
    nervaluate = pytest.importorskip("nervaluate")
    gold, predicted = [[at(0, 10)]], [[at(0, 5), at(0, 10)]]
    theirs = nervaluate.Evaluator(_inclusive(gold), _inclusive(predicted), tags=["Disease"], loader="dict").evaluate()
    assert theirs["overall"]["strict"].correct == 0
    assert strict(_all(gold), _all(predicted)) == {"Disease": Counts(1, 1, 2)}


@pytest.mark.parametrize("seed", range(8))
def test_flat_spans_score_as_seqeval_scores_their_tags(seed: int) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    gold, predicted = _documents(seed)

    def tags(document: Sequence[Mention]) -> list[str]:
        row = ["O"] * 80
        for one in document:
            start, end = one.offsets or (0, 0)
            row[start:end] = [f"B-{one.type}"] + [f"I-{one.type}"] * (end - start - 1)
        return row

    truth, given = [tags(one) for one in gold], [tags(one) for one in predicted]
    ours = strict(_all(gold), _all(predicted))
    assert micro(ours).precision == pytest.approx(metrics.precision_score(truth, given))
    assert micro(ours).recall == pytest.approx(metrics.recall_score(truth, given))
    assert micro(ours).f1 == pytest.approx(metrics.f1_score(truth, given))
    assert macro_f1(ours) == pytest.approx(metrics.f1_score(truth, given, average="macro"))


def _published(name: str) -> list[Mention]:
    records = bc5cdr.read([REAL / "bc5cdr" / name], ReadOptions())
    annotated = [record for record in records if isinstance(record, Annotated)]
    return [Mention(one.uid, span.type, span.text, (span.start, span.end)) for one in annotated for span in one.spans]


@needs_real
@pytest.mark.parametrize(
    ("name", "mentions", "unique"),
    [("CDR_TrainingSet.PubTator.txt", 9385, 4563), ("CDR_DevelopmentSet.PubTator.txt", 9591, 4559)],
)
def test_collapsing_bc5cdr_drops_about_half_of_its_mentions(name: str, mentions: int, unique: int) -> None:
    gold = _published(name)
    lines = [line.split("\t") for line in (REAL / "bc5cdr" / name).read_text().splitlines()]
    rows = {tuple(line[:5]) for line in lines if len(line) >= 6 and line[1].isdigit()}
    assert micro(strict(gold, gold)) == Counts(len(rows), len(rows), len(rows)) == Counts(mentions, mentions, mentions)
    kept = {(document, text, kind) for document, _, _, text, kind in rows}
    assert micro(collapsed(gold, gold)) == Counts(len(kept), len(kept), len(kept)) == Counts(unique, unique, unique)
    assert 0.51 < 1 - unique / mentions < 0.54


@needs_real
def test_two_thirds_of_bc5cdr_development_mentions_are_seen_in_training() -> None:
    seen = {one.text.casefold() for one in _published("CDR_TrainingSet.PubTator.txt")}
    gold = _published("CDR_DevelopmentSet.PubTator.txt")
    assert 0.60 < 1 - len(unseen(gold, seen)) / len(gold) < 0.73
