"""PubMedQA in both shapes, and its official split."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lora_med.config.data_settings import DataSettings
from lora_med.data.corpus import open_corpus, open_heldout
from lora_med.data.record import Question
from lora_med.data.splitting import pubmedqa_folds as folds
from lora_med.errors import DataError
from tests.data.real_files import REAL, needs_real

ITEM = {
    "QUESTION": "Does it help?",
    "CONTEXTS": ["We asked.", "It did."],
    "LABELS": ["AIM", "RESULTS"],
    "MESHES": ["Humans"],
    "YEAR": "2001",
    "reasoning_required_pred": "no",
    "reasoning_free_pred": "no",
    "final_decision": "yes",
    "LONG_ANSWER": "It helps.",
}
ROW = {
    "pubid": 123,
    "question": "Does it help?",
    "context": {"contexts": ["We asked.", "It did."], "labels": ["AIM", "RESULTS"], "meshes": ["Humans"]},
    "long_answer": "It helps.",
    "final_decision": "yes",
}
FULL = {"yes": 552, "no": 338, "maybe": 110}
REST = REAL / "pubmedqa" / "ori_pqal_nontest500.json"


def settings(path: Path, **changes: Any) -> DataSettings:
    values: dict[str, Any] = {"source": "pubmedqa", "paths": [str(path)], "validation_share": 0, "test_share": 0}
    return DataSettings(**(values | changes))


def made_up(count: int, seed: int = 1) -> dict[str, dict[str, Any]]:
    chance = random.Random(seed)
    return {
        str(10_000 + number): ITEM | {"QUESTION": f"Q {number}?", "final_decision": chance.choice(folds.ANSWERS)}
        for number in range(count)
    }


def test_both_shapes_give_the_same_question(tmp_path: Path) -> None:
    expected = Question(
        "pmid:123",
        "123",
        "pubmedqa",
        "Does it help?",
        "yes",
        ("We asked.", "It did."),
        ("yes", "no", "maybe"),
        "It helps.",
    )
    shapes = {
        "original.json": json.dumps({"123": ITEM}, indent=1),
        "array.json": json.dumps([ROW]),
        "one.json": json.dumps(ROW),
        "lines.jsonl": json.dumps(ROW) + "\n",
    }
    for name, text in shapes.items():
        (tmp_path / name).write_text(text)
        assert list(open_corpus(settings(tmp_path / name)).train) == [expected], name
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "hub.parquet")
    assert list(open_corpus(settings(tmp_path / "hub.parquet")).train) == [expected]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"final_decision": "perhaps"}, "yes, no or maybe"),
        ({"CONTEXTS": "secret"}, "a list of texts"),
        ({"CONTEXTS": ["secret", 1]}, "a list of texts"),
        ({"QUESTION": None}, "question: expected a text, got nothing"),
    ],
)
def test_a_bad_item_is_named_and_its_text_is_not(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"1": ITEM, "secret": ITEM, "3": ITEM | change}))
    with pytest.raises(DataError) as caught:
        open_corpus(settings(path))
    assert caught.value.where == f"{path}, item 2"
    assert "secret" not in str(caught.value)
    path.write_text(json.dumps({"1": ITEM, "3": ITEM | change}))
    with pytest.raises(DataError, match=expected) as caught:
        open_corpus(settings(path))
    assert caught.value.where == f"{path}, item 2"
    assert open_corpus(settings(path, skip_bad=True, validation_share=0, test_share=0)).tally.dropped == {"bad": 1}


def test_the_official_deal_has_the_published_sizes() -> None:
    answers = {f"{answer}{number}": answer for answer, count in FULL.items() for number in range(count)}
    test, dealt = folds.official(answers)
    assert Counter(answers[pmid] for pmid in test) == {"yes": 276, "no": 169, "maybe": 55}
    assert [len(fold) for fold in dealt] == [50] * 10
    assert sorted([*test, *(pmid for fold in dealt for pmid in fold)]) == sorted(answers)


def test_the_deal_follows_random_shuffle_under_seed_0() -> None:
    answers = {f"{answer}{number}": answer for number in range(552) for answer, count in FULL.items() if number < count}
    random.seed(0)
    yes, no, maybe = ([f"{answer}{number}" for number in range(count)] for answer, count in FULL.items())
    for pmids in (yes, no, maybe):
        random.shuffle(pmids)
    assert folds.official(answers)[0] == yes[276:] + no[169:] + maybe[55:]


def test_the_folds_follow_without_the_test_items() -> None:
    order = [(answer, number) for answer, count in FULL.items() for number in range(count)]
    random.Random(7).shuffle(order)
    answers = {f"{answer}{number}": answer for answer, number in order}
    test, dealt = folds.official(answers)
    rest = {pmid: answer for pmid, answer in answers.items() if pmid not in set(test)}
    assert folds.official(folds.with_unnamed_test_items(rest))[1] == dealt


def test_a_ground_truth_file_names_the_test_and_is_no_input_itself(tmp_path: Path) -> None:
    items = made_up(60)
    (tmp_path / "ori_pqal.json").write_text(json.dumps(items))
    truth = {pmid: items[pmid]["final_decision"] for pmid in list(items)[:20]}
    (tmp_path / folds.GROUND_TRUTH).write_text(json.dumps(truth))
    here = settings(tmp_path / "*.json", validation_share=0.1)
    corpus = open_corpus(here)
    assert {record.group for record in open_heldout(here, "test")} == set(truth)
    assert corpus.split_description.startswith("test by test_ground_truth.json: 20 items")
    assert len(corpus.train) + len(corpus.validation) == 40
    assert not {record.group for record in [*corpus.train, *corpus.validation]} & set(truth)


def test_the_authors_own_split_files_are_separate_splits(tmp_path: Path) -> None:
    items = list(made_up(30).items())
    for name, part in (("train_set", items[:20]), ("dev_set", items[20:25]), ("test_set", items[25:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(dict(part)))
    corpus = open_corpus(settings(tmp_path))
    assert (len(corpus.train), len(corpus.validation)) == (20, 5)
    assert len(open_heldout(settings(tmp_path), "test")) == 5
    (tmp_path / "dev_set.json").write_text(json.dumps(dict(items[19:25])))
    with pytest.raises(DataError, match=rf"1 of train share a group .* validation \(pmid:{items[19][0]}\)"):
        open_corpus(settings(tmp_path))


def test_other_sets_are_split_by_share_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made_up(200)))
    here = settings(path, validation_share=0.1, test_share=0.2)
    corpus, test = open_corpus(here), open_heldout(here, "test")
    assert "not an official split" in corpus.split_description
    assert (len(test), len(corpus.validation)) == (pytest.approx(40, abs=2), pytest.approx(20, abs=2))
    answers = Counter(record.answer for record in [*corpus.train, *test] if isinstance(record, Question))
    tested = Counter(record.answer for record in test if isinstance(record, Question))
    assert all(tested[answer] == pytest.approx(0.2 * 200 / 3, rel=0.35) for answer in answers)


@needs_real
def test_the_real_half_has_its_answers_and_no_test_item() -> None:
    blocked = set((REAL / "blocklists" / "pubmedqa_test_pmids.txt").read_text().split())
    records = [record for record in open_corpus(settings(REST)).train if isinstance(record, Question)]
    records += [record for record in open_heldout(settings(REST), "validation") if isinstance(record, Question)]
    assert Counter(record.answer for record in records) == {"yes": 276, "no": 169, "maybe": 55}
    assert len(blocked) == 500
    assert not blocked & {record.group for record in records}
    assert folds.fingerprint(blocked) == folds.TEST_SHA256
    assert folds.fingerprint(record.group for record in records) == folds.REST_SHA256
    assert folds.fingerprint([*blocked, *(record.group for record in records)]) == folds.ALL_SHA256


@needs_real
def test_the_real_half_is_validated_by_official_folds_and_never_called_the_official_test() -> None:
    seen: set[str] = set()
    for fold in range(10):
        corpus = open_corpus(settings(REST, fold=fold))
        assert (len(corpus.train), len(corpus.validation)) == (450, 50)
        assert not seen & {record.group for record in corpus.validation}
        seen |= {record.group for record in corpus.validation}
    assert len(seen) == 500
    with pytest.raises(DataError, match="NOT the official test"):
        open_heldout(settings(REST), "test")
    own = settings(REST, test_share=0.4)
    test = open_heldout(own, "test")
    assert abs(len(test) - 180) <= 1  # rounded for each answer
    assert "NOT the official test" in open_corpus(own).split_description
    assert not {record.group for record in test} & {record.group for record in open_corpus(own).train}


@needs_real
def test_the_thousand_in_another_order_are_refused(tmp_path: Path) -> None:
    items = json.loads(REST.read_text())
    blocked = (REAL / "blocklists" / "pubmedqa_test_pmids.txt").read_text().split()
    stand_ins = {pmid: ITEM | {"QUESTION": f"Q {pmid}?"} for pmid in blocked}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(items | stand_ins))
    with pytest.raises(DataError, match="another order"):
        open_corpus(settings(path))
    (tmp_path / folds.GROUND_TRUTH).write_text(json.dumps(dict.fromkeys(blocked, "yes")))
    assert {record.group for record in open_heldout(settings(path), "test")} == set(blocked)
    assert open_corpus(settings(path)).split_description.startswith(
        "official PubMedQA test by test_ground_truth.json: 500 items"
    )


def test_the_complete_set_gets_the_official_test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 1,000 real items are not here: invented ones stand in, under the fingerprints they have."""
    decisions = [answer for answer, count in FULL.items() for _ in range(count)]
    items = {
        str(10_000 + number): ITEM | {"QUESTION": f"Q {number}?", "final_decision": answer}
        for number, answer in enumerate(decisions)
    }
    test, dealt = folds.official({pmid: item["final_decision"] for pmid, item in items.items()})
    monkeypatch.setattr(folds, "ALL_SHA256", folds.fingerprint(items))
    monkeypatch.setattr(folds, "TEST_SHA256", folds.fingerprint(test))
    path = tmp_path / "ori_pqal.json"
    path.write_text(json.dumps(items))
    corpus = open_corpus(settings(path, fold=3, near_duplicate_similarity=0, block_lists=[]))
    assert "official PubMedQA split: 500 test" in corpus.split_description
    assert {record.group for record in corpus.validation} == set(dealt[3])
    assert {record.group for record in corpus.train} == set(items) - set(test) - set(dealt[3])
