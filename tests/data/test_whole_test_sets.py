"""Published test sets are scored whole: what guards training takes nothing out of what is scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.config.data_settings import DataSettings
from lora_med.data.corpus import open_corpus, open_heldout, open_splits
from lora_med.data.splitting.block_lists import write_block_list
from lora_med.data.splitting.split_plans import hold_out
from lora_med.errors import DataError
from tests.data.real_files import REAL, needs_real


def settings(path: Path, **values: Any) -> DataSettings:
    given = {"source": "custom", "paths": [str(path)], "near_duplicate_similarity": 0, "validation_share": 0}
    return DataSettings(**(given | values))


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def exam(path: Path, *numbers: int) -> None:
    """A file of MMLU: questions by number, so that equal numbers are equal questions."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([f"Question {n} of it?", f"a{n}", f"b{n}", "c", "d", "A"] for n in numbers)


@pytest.mark.parametrize("streaming", [False, True])
def test_duplicates_leave_training_only(tmp_path: Path, streaming: bool) -> None:
    exam(tmp_path / "anatomy_dev.csv", 1, 2, 1, 3, 1)
    exam(tmp_path / "anatomy_val.csv", 11, 12, 11)
    exam(tmp_path / "anatomy_test.csv", 21, 22, 21, 23, 22, 21)
    data = settings(tmp_path, source="mmlu", streaming=streaming)
    corpus, test = open_corpus(data), open_heldout(data, "test")
    validation = open_heldout(data, "validation")
    assert (len(corpus.train), len(corpus.validation), len(validation), len(test)) == (3, 3, 3, 6)
    assert corpus.tally.dropped == {"duplicate": 2} and (corpus.tally.read, corpus.tally.kept) == (14, 12)
    assert len({record.uid for record in test}) == 6
    assert (test.published, test.left_out) == (6, {}) and validation.published == 3
    assert len(test.draw(None, 1)) == 6


def test_equal_items_with_one_uid_are_numbered_and_different_ones_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *({"uid": f"t{n}", "text": f"Training text {n}."} for n in range(4)))
    same = {"uid": "a", "group": "g", "text": "Once and again."}
    write(tmp_path / "test.jsonl", same, same, {"uid": "b", "text": "Other."}, same)
    test = open_heldout(settings(tmp_path), "test", access="open")
    assert [record.uid for record in test] == ["a", "a#2", "b", "a#3"]
    write(tmp_path / "test.jsonl", same, same | {"text": "Different."})
    with pytest.raises(DataError, match="two different records have the uid 'a'"):
        open_heldout(settings(tmp_path), "test", access="open")


def test_a_number_never_meets_a_uid_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"uid": "t", "text": "Training text."})
    write(
        tmp_path / "test.jsonl",
        *({"uid": uid, "text": text} for uid, text in zip(["a", "a#2", "a"], "xyx", strict=True)),
    )
    test = open_heldout(settings(tmp_path), "test", access="open")
    assert [record.uid for record in test] == ["a", "a#2", "a#3"]


def test_a_test_file_of_its_own_is_scored_whole_and_one_to_split_is_not(tmp_path: Path) -> None:
    exam(tmp_path / "bullets.csv", 1, 2, 1, 3, 2)
    data = settings(tmp_path / "bullets.csv", source="mmlu", test_share=0.5)
    test = open_heldout(data, "test", hold_out_all=True)
    assert (len(test), test.published) == (5, 5)
    (splits,) = open_splits(data).sources
    assert sum(map(len, splits.records.values())) == 3 and splits.tally.dropped == {"duplicate": 2}
    assert splits.published == {}


def pubmedqa(path: Path, *pmids: int) -> Path:
    item = {"CONTEXTS": ["We asked."], "LONG_ANSWER": "It helps."}
    answers = ("yes", "no", "maybe")
    path.write_text(
        json.dumps({str(n): item | {"QUESTION": f"Does {n} help?", "final_decision": answers[n % 3]} for n in pmids})
    )
    return path


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("hold_out_all", [False, True])
def test_a_file_of_published_test_items_alone_is_scored_and_never_trained_on(
    split: Any, hold_out_all: bool, tmp_path: Path
) -> None:
    path = pubmedqa(tmp_path / "items.json", *range(100, 260))
    write_block_list(tmp_path / "mine.txt", (f"pmid:{n}" for n in range(90, 300)), "mine")
    data = settings(path, source="pubmedqa", block_lists=[str(tmp_path / "mine.txt")], test_share=0)
    held = open_heldout(data, split, hold_out_all=hold_out_all)
    assert (len(held), held.published, held.left_out) == (160, 160, {})
    assert held.training == ()
    with pytest.raises(DataError, match=r"160 read, 0 kept; dropped: blocked 160"):
        open_corpus(data)


def test_one_item_that_is_on_no_list_keeps_the_split_of_training(tmp_path: Path) -> None:
    path = pubmedqa(tmp_path / "items.json", *range(100, 160))
    write_block_list(tmp_path / "mine.txt", (f"pmid:{n}" for n in range(100, 159)), "mine")
    data = settings(path, source="pubmedqa", block_lists=[str(tmp_path / "mine.txt")], test_share=0.2)
    test = {record.group for record in open_heldout(data, "test")}
    assert len(test) == 12 and test < {str(n) for n in range(100, 160)}
    assert not test & {record.group for record in open_corpus(data).train}
    with pytest.raises(DataError, match="the test split is empty"):
        open_heldout(data.model_copy(update={"decontaminate": False, "test_share": 0.0}), "test")


def test_block_lists_take_nothing_out_of_the_split_that_is_scored(tmp_path: Path) -> None:
    for name, pmids in (("train", (1, 2, 3)), ("dev", (4, 5)), ("test", (6, 7))):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"{n}|t|Title {n}\n{n}|a|About {n}.\n" for n in pmids))
    write_block_list(tmp_path / "list.block", ["pmid:3", "pmid:5", "pmid:7"], "some")
    data = settings(
        tmp_path, source="bc5cdr", paths=[str(tmp_path / "*.txt")], block_lists=[str(tmp_path / "list.block")]
    )
    corpus = open_corpus(data)
    assert [record.group for record in corpus.train] == ["1", "2"]
    assert [record.group for record in corpus.validation] == ["4"], (
        "what training is chosen by is guarded as training is"
    )
    assert [record.group for record in open_heldout(data, "test", with_validation=True).validation] == ["4"]
    scored = open_heldout(data, "validation", most_training=9)
    assert [record.group for record in scored] == ["4", "5"] and scored.published == 2
    assert [record.group for record in scored.training] == ["1", "2"]
    assert [record.group for record in open_heldout(data, "test")] == ["6", "7"]


def test_what_is_not_scored_is_counted_by_reason(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *({"text": f"Training text {n}."} for n in range(4)))
    write(tmp_path / "validation.jsonl", {"text": "Held out 1."}, {"text": "Scored 1."})
    write(tmp_path / "test.jsonl", {"text": "Scored 1."}, {"text": ""}, {"text": "Scored 2."}, {"text": "Scored 2."})
    with pytest.raises(DataError, match="the splits overlap"):
        open_heldout(settings(tmp_path, skip_bad=True), "test")
    data = settings(tmp_path, skip_bad=True, leaks="drop")
    test, validation = open_heldout(data, "test"), open_heldout(data, "validation")
    assert (len(test), test.published, test.left_out) == (3, 4, {"empty_text": 1})
    assert (len(validation), validation.published, validation.left_out) == (1, 2, {"leak": 1})
    drawn = test.draw(2, seed=1)
    assert (len(drawn), drawn.left_out) == (2, {"empty_text": 1, "max_items": 1})
    assert drawn.left_out_of(1) == {"empty_text": 1, "max_items": 1, "nothing to score": 1}


def test_a_limit_on_reading_leaves_the_size_of_the_set_unknown(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", *({"text": f"Training text {n}."} for n in range(9)))
    write(tmp_path / "test.jsonl", *({"text": f"Scored {n}."} for n in range(5)))
    cut = open_heldout(settings(tmp_path, max_records=3), "test")
    assert (len(cut), cut.published, cut.left_out_of(3)) == (3, None, {})
    assert open_heldout(settings(tmp_path, max_records=6), "test").published == 5


def test_shares_make_no_published_split(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *({"text": f"Text {n}."} for n in range(60)))
    held = open_heldout(settings(path, test_share=0.3), "test")
    assert held.published is None and held.left_out_of(len(held)) == {}
    assert hold_out(settings(path), "validation").test_share == 0


@needs_real
@pytest.mark.parametrize(("corpus", "items"), [("BC5CDR-IOB", 4797), ("NCBI-disease-IOB", 940)])
def test_the_published_iob_test_files_are_whole(corpus: str, items: int) -> None:
    folder = REAL / "ner_iob" / corpus
    if not (folder / "test.tsv").is_file():
        pytest.skip("the test file is not on this machine")
    data = settings(folder, source="conll", paths=[str(folder / "*.tsv")], leaks="drop", block_lists=[])
    test = open_heldout(data, "test")
    assert (len(test), test.published) == (items, items)


@needs_real
def test_the_development_file_of_bc5cdr_in_iob_is_whole_beside_its_training_file() -> None:
    folder = REAL / "ner_iob" / "BC5CDR-IOB"
    data = settings(folder, source="conll", paths=[str(folder / "devel.tsv"), str(folder / "train.tsv")], leaks="drop")
    held = open_heldout(data, "validation")
    assert (len(held), held.published) == (4581, 4581)


@needs_real
def test_test_items_of_pubmedqa_in_a_file_of_their_own_are_scored(tmp_path: Path) -> None:
    listed = (REAL / "blocklists" / "pubmedqa_test_pmids.txt").read_text().split()
    pmids = [int(line.removeprefix("pmid:")) for line in listed if line.removeprefix("pmid:").isdigit()][:160]
    data = settings(pubmedqa(tmp_path / "items.json", *pmids), source="pubmedqa", test_share=0)
    assert len(open_heldout(data, "test")) == 160
