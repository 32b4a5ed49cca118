"""The door to data: splits by group, parts apart, streaming, limits, access classes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Literal

import pytest

from lora_med.config.data_settings import DataSettings
from lora_med.data.access import strictest
from lora_med.data.catalog import SOURCES, find_source
from lora_med.data.corpus import Corpus, Stream, open_corpus, open_heldout, open_splits
from lora_med.data.record import Passage, Question, Record, Split
from lora_med.data.splitting.leakage import Decontamination, Rules, decontaminate
from lora_med.data.splitting.splits import split_of_group, stratified
from lora_med.errors import DataError, SettingsError
from lora_med.prompts.templates.templates import TEMPLATES


def settings(path: Path | str, **changes: Any) -> DataSettings:
    return DataSettings(**({"source": "custom", "paths": [str(path)]} | changes))


def write_rows(path: Path, numbers: range | list[int], groups: int = 1000) -> Path:
    rows = [{"text": f"text {number}", "uid": f"u{number}", "group": f"g{number % groups}"} for number in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parts(settings: DataSettings) -> dict[str, set[str]]:
    corpus = open_corpus(settings)
    held = {"train": corpus.train, "validation": corpus.validation, "test": open_heldout(settings, "test")}
    return {part: {record.uid for record in records} for part, records in held.items()}


def test_shares_are_met_and_no_group_is_in_two_splits(tmp_path: Path) -> None:
    here = settings(write_rows(tmp_path / "a.jsonl", range(4000)), validation_share=0.1, test_share=0.2)
    corpus, test = open_corpus(here), open_heldout(here, "test")
    groups = [{record.group for record in records} for records in (corpus.train, corpus.validation, test)]
    assert len(test) / 4000 == pytest.approx(0.2, abs=0.03)
    assert len(corpus.validation) / 4000 == pytest.approx(0.1, abs=0.03)
    assert sum(map(len, groups)) == len(set.union(*groups)) == 1000


def test_a_part_does_not_change_with_the_order_of_rows_or_with_more_rows(tmp_path: Path) -> None:
    order = list(range(300))
    first = parts(settings(write_rows(tmp_path / "a.jsonl", order)))
    random.Random(3).shuffle(order)
    assert parts(settings(write_rows(tmp_path / "b.jsonl", order))) == first
    more = parts(settings(write_rows(tmp_path / "c.jsonl", range(400))))
    assert all(first[part] <= more[part] for part in first)


def test_another_seed_is_another_split_and_one_share_leaves_the_other_part_alone() -> None:
    groups = [str(number) for number in range(2000)]

    def of(part: str, seed: int = 1, validation: float = 0.1, test: float = 0.1) -> set[str]:
        return {group for group in groups if split_of_group(group, seed, validation, test) == part}

    assert of("test", seed=2) != of("test")
    assert of("test", validation=0.3) == of("test")
    assert of("validation", test=0.3) == of("validation")
    assert of("test") < of("test", test=0.3)
    assert not of("test", test=0.0)


def test_stratified_parts_keep_the_share_of_each_answer_exactly() -> None:
    records = [Question(str(n), str(n), "s", f"q{n}", "yes" if n < 40 else "no") for n in range(100)]
    found = stratified(records, 42, 0.1, 0.25)
    for answers, test, validation in ((range(40), 10, 4), (range(40, 100), 15, 6)):
        own = [found[str(n)] for n in answers]
        assert (own.count("test"), own.count("validation")) == (test, validation)
    assert stratified(records[::-1], 42, 0.1, 0.25) == found


def test_overlap_by_group_or_by_content_is_refused_with_counts_and_uids() -> None:
    def passage(uid: str, group: str, text: str) -> Passage:
        return Passage(uid, group, "custom", text)

    train = [passage("a", "1", "x"), passage("b", "2", "y")]
    everything: frozenset[Split] = frozenset({"train", "validation", "test"})

    def scan(*test: Passage, leaks: Literal["error", "drop"] = "error") -> Decontamination:
        placed: list[tuple[int, Split, Record]] = [(0, "train", one) for one in train]
        return decontaminate(placed + [(0, "test", one) for one in test], Rules(leaks), everything)

    assert scan(passage("c", "3", "z")).counts() == {}
    tests = (passage("c", "1", "z"), passage("d", "4", "y"), passage("e", "5", "w"))
    with pytest.raises(DataError, match=r"2 of train share a group or content with test \(a, b\)") as caught:
        scan(*tests)
    assert caught.value.exit_code == 65
    assert scan(*tests, leaks="drop").removed == {(0, "train", "a"): "leak", (0, "train", "b"): "leak"}


def test_a_record_taken_out_of_training_leaves_its_namesake_in_the_test_alone(tmp_path: Path) -> None:
    for name, pmids in (("train", (1, 2, 3, 4)), ("test", (2, 5))):
        texts = (f"{pmid}|t|Title {pmid}\n{pmid}|a|About {pmid} {name}.\n" for pmid in pmids)
        (tmp_path / f"{name}.txt").write_text("\n".join(texts))
    here = DataSettings(source="bc5cdr", paths=[str(tmp_path)], leaks="drop", validation_share=0)
    corpus = open_corpus(here)
    assert [record.uid for record in corpus.train] == ["pmid:1", "pmid:3", "pmid:4"]
    assert [record.uid for record in open_heldout(here, "test")] == ["pmid:2", "pmid:5"]
    assert corpus.tally.kept == 5 and corpus.tally.dropped == {"leak": 1}


def test_a_file_of_no_part_beside_files_of_parts_is_refused(tmp_path: Path) -> None:
    for name, numbers in (("train", range(10)), ("test", range(14, 20)), ("extra", range(30, 40))):
        write_rows(tmp_path / f"{name}.jsonl", numbers)
    with pytest.raises(DataError, match=r"after the splits test, train, and 1 after none: extra.jsonl"):
        open_corpus(settings(tmp_path))


def test_published_files_are_the_split_and_test_is_not_in_the_corpus(tmp_path: Path) -> None:
    for name, numbers in (("train", range(10)), ("dev", range(10, 14)), ("test", range(14, 20))):
        write_rows(tmp_path / f"{name}.jsonl", numbers)
    corpus = open_corpus(settings(tmp_path))
    assert (len(corpus.train), len(corpus.validation)) == (10, 4)
    assert "test" not in {field for field in Corpus.__dataclass_fields__ if field != "split"}
    assert {record.uid for record in open_heldout(settings(tmp_path), "test", access="open")} == {
        f"u{n}" for n in range(14, 20)
    }
    assert corpus.split_description == "published, by file: validation 4, test 6, train 10"
    write_rows(tmp_path / "test.jsonl", range(9, 20))
    with pytest.raises(DataError, match="overlap"):
        open_corpus(settings(tmp_path))


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_published_validation_it_comes_from_train_alone(tmp_path: Path, streaming: bool) -> None:
    write_rows(tmp_path / "train.jsonl", range(200))
    write_rows(tmp_path / "test.jsonl", range(200, 220))
    here = settings(tmp_path, validation_share=0.2, streaming=streaming)
    corpus = open_corpus(here)
    assert len(corpus.train) + len(corpus.validation) == 200
    assert 20 <= len(corpus.validation) <= 60
    assert len(open_heldout(here, "test")) == 20


def test_one_file_called_train_is_split_by_share(tmp_path: Path) -> None:
    (found,) = open_splits(settings(write_rows(tmp_path / "train.jsonl", range(300)))).sources
    assert found.description.startswith("split by group")
    assert len(found.records["test"]) > 0


def test_a_stream_gives_what_memory_gives_at_every_pass(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", range(300))
    held, streamed = open_corpus(settings(path)), open_corpus(settings(path, streaming=True))
    assert isinstance(streamed.train, Stream)
    assert list(streamed.train) == list(streamed.train) == held.train
    assert len(streamed.train) == len(held.train)
    assert list(streamed.validation) == held.validation
    assert (streamed.tally, streamed.hashes) == (held.tally, held.hashes)


def test_max_records_bounds_what_is_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", range(300))
    for streaming in (False, True):
        assert open_corpus(settings(path, max_records=50, streaming=streaming)).tally.read == 50


def test_an_empty_part_says_how_the_parts_were_made(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", range(3))
    with pytest.raises(DataError, match=r"the test split is empty: split by group with seed 42.*0 test"):
        open_heldout(settings(path, test_share=0), "test")
    with pytest.raises(DataError, match="nothing is left to train on"):
        open_corpus(settings(path, validation_share=0.99, test_share=0))


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    import hashlib

    path = write_rows(tmp_path / "a.jsonl", range(50))
    assert open_corpus(settings(path)).hashes == {"a.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_the_strictest_access_class_wins() -> None:
    assert strictest(["open", "credentialed", "registered"]) == "credentialed"
    assert strictest(["registered", "open"]) == "registered"
    assert strictest([]) == "open"
    with pytest.raises(SettingsError, match="did you mean 'credentialed'"):
        strictest(["credential"])


def test_an_unknown_source_names_the_near_one() -> None:
    with pytest.raises(SettingsError, match="did you mean 'pubmedqa'"):
        find_source("pubmedqq")


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_every_source_has_its_template_and_docstring(source: Any) -> None:
    import importlib

    assert TEMPLATES[source.template].takes in source.kinds
    module = importlib.import_module(source.module)
    assert "icense" in (module.__doc__ or "")
    assert callable(module.read)


def test_very_many_files_have_one_hash_that_each_of_them_changes(tmp_path: Path) -> None:
    for number in range(70):
        write_rows(tmp_path / f"{number}.jsonl", [number])
    (first,) = open_corpus(settings(tmp_path)).hashes.items()
    assert first[0] == "custom, 70 files"
    write_rows(tmp_path / "7.jsonl", [700])
    assert list(open_corpus(settings(tmp_path)).hashes) == [first[0]]
    assert open_corpus(settings(tmp_path)).hashes != dict([first])
