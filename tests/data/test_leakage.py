"""Splits kept apart: block-lists, overlap with test files, near-duplicates, and mixtures of sources."""

from __future__ import annotations

import gzip
import json
import random
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_med.config.data_settings import DataSettings
from lora_med.data import corpus as data_door
from lora_med.data.mixture import Ingredient, mix
from lora_med.data.record import Passage
from lora_med.data.splitting.block_lists import hashed, load_block_list, shipped, write_block_list
from lora_med.data.splitting.near_duplicates import clusters, signatures
from lora_med.data.splitting.ngrams import ngrams, word_hashes
from lora_med.data.splitting.overlap_with_tests import load_test_file
from lora_med.errors import DataError, InputMissingError, SettingsError
from tests.data.real_files import REAL, needs_real

open_corpus = partial(data_door.open_corpus, access="open")  # every row here is invented
open_splits = partial(data_door.open_splits, access="open")
open_heldout = partial(data_door.open_heldout, access="open")


def sentence(seed: int, words: int = 40) -> str:
    draw = random.Random(seed)
    return " ".join(f"word{draw.randrange(5000)}" for _ in range(words))


def changed(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = "other"
    return " ".join(words)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(path: Path, **values: Any) -> DataSettings:
    return DataSettings(**({"source": "custom", "paths": [str(path)]} | values))


def jaccard(one: str, other: str) -> float:
    first, second = ({tuple(words[n : n + 3]) for n in range(len(words) - 2)} for words in (one.split(), other.split()))
    return len(first & second) / len(first | second)


def test_signatures_estimate_the_jaccard_similarity_of_word_runs() -> None:
    texts = [
        sentence(1, 200),
        changed(sentence(1, 200), 100),
        changed(sentence(1, 200), 5, 50, 100, 150),
        sentence(2, 200),
    ]
    marks = signatures(texts)
    for first in range(4):
        for other in range(4):
            estimate = np.count_nonzero(marks[first] == marks[other]) / marks.shape[1]
            assert estimate == pytest.approx(jaccard(texts[first], texts[other]), abs=0.12)


def test_near_duplicates_are_found_among_many_and_nothing_else() -> None:
    texts = [sentence(seed, 200) for seed in range(300)]
    texts += [changed(texts[number], 60) for number in range(40)]
    texts += [texts[7].upper().replace(" ", ", ")]
    found = clusters(signatures(texts), 0.8)
    assert sorted(map(tuple, found)) == [(n, 300 + n, 340) if n == 7 else (n, 300 + n) for n in range(40)]
    assert clusters(signatures([]), 0.8) == []
    assert clusters(signatures(["", "a", "b", "A!"]), 0.8) == [[1, 3]]


def test_word_runs_are_alike_in_every_process_and_blind_to_case_and_punctuation() -> None:
    assert word_hashes("Iron, in BLOOD!").tolist() == word_hashes("iron in blood").tolist()
    assert len(ngrams(word_hashes("a b c d"), 3)) == 2 and len(ngrams(word_hashes("a b"), 3)) == 0
    assert word_hashes("iron").tolist() == [0x7870E09C]  # as gzip writes it at the end of `iron`


@pytest.mark.parametrize("streaming", [False, True])
def test_groups_of_near_duplicates_go_into_one_part(tmp_path: Path, streaming: bool) -> None:
    rows = [{"uid": f"a{n}", "group": f"g{n}", "text": sentence(n, 100)} for n in range(200)]
    rows += [{"uid": f"b{n}", "group": f"h{n}", "text": changed(sentence(n, 100), 50)} for n in range(200)]
    path = write(tmp_path / "rows.jsonl", rows)
    here = settings(path, validation_share=0.25, test_share=0.25, streaming=streaming)
    corpus, test = open_corpus(here), open_heldout(here, "test")
    part = {
        record.uid: name
        for name, held in (("t", corpus.train), ("v", corpus.validation), ("x", test))
        for record in held
    }
    assert len(part) == 400
    assert all(part[f"a{n}"] == part[f"b{n}"] for n in range(200))
    assert min(list(part.values()).count(name) for name in "tvx") > 50
    assert "groups moved to their near-duplicates" in corpus.split_description
    apart = settings(path, validation_share=0.25, test_share=0.25, near_duplicate_similarity=0, streaming=streaming)
    alone = {record.uid for record in open_corpus(apart).train}
    assert any((f"a{n}" in alone) != (f"b{n}" in alone) for n in range(200))


def test_near_duplicates_that_tie_everything_together_are_refused(tmp_path: Path) -> None:
    rows = [{"uid": f"a{n}", "group": f"g{n}", "text": changed(sentence(1, 200), n)} for n in range(100)]
    rows += [{"uid": f"b{n}", "group": f"h{n}", "text": sentence(n + 2, 200)} for n in range(100)]
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="near-duplicates tie 100 of 200 groups together"):
        open_corpus(settings(path, validation_share=0.2))
    corpus = open_corpus(settings(path, validation_share=0.2, leaks="drop"))
    assert corpus.tally.dropped["near_duplicate"] > 50 and len(corpus.train) > 50


def test_a_leak_between_published_parts_fails_with_counts_and_uids_or_is_dropped(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"uid": f"a{n}", "text": sentence(n, 100)} for n in range(10)])
    write(
        tmp_path / "test.jsonl", [{"uid": "t", "text": changed(sentence(3, 100), 40)}, {"uid": "u", "text": "New one."}]
    )
    with pytest.raises(DataError, match=r"1 of train are near-duplicates of test \(a3\)") as caught:
        open_corpus(settings(tmp_path))
    assert caught.value.exit_code == 65 and "data.leaks=drop" in (caught.value.fix or "")
    corpus = open_corpus(settings(tmp_path, leaks="drop", validation_share=0))
    assert sorted(record.uid for record in corpus.train) == [f"a{n}" for n in range(10) if n != 3]
    assert corpus.tally.dropped == {"near_duplicate": 1} and corpus.tally.kept == 11
    assert corpus.decontamination[0]["removed_uids"] == {"near_duplicate": ["a3"]}
    assert [record.uid for record in open_heldout(settings(tmp_path, leaks="drop"), "test")] == ["t", "u"]


def pubmed(path: Path, *pmids: int) -> Path:
    articles = "".join(
        f"<PubmedArticle><MedlineCitation><PMID Version='1'>{pmid}</PMID><Article><Abstract><AbstractText>"
        f"{sentence(pmid)}.</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle>"
        for pmid in pmids
    )
    path.write_text(f"<PubmedArticleSet>{articles}</PubmedArticleSet>")
    return path


def test_a_listed_pmid_leaves_training_by_default(tmp_path: Path) -> None:
    count = write_block_list(tmp_path / "mine.txt", ["pmid:3", "pmid:4", "pmid:4"], "mine")
    assert count == 2
    path = pubmed(tmp_path / "a.xml", 3, 4, 5, 6)
    held = {"validation_share": 0, "test_share": 0}
    blocked = settings(path, source="pubmed", block_lists=[str(tmp_path / "mine.txt")], **held)
    corpus = open_corpus(blocked)
    assert [record.uid for record in corpus.train] == ["pmid:5", "pmid:6"]
    assert corpus.tally.dropped == {"blocked": 2}
    (listed,) = corpus.decontamination[0]["block_lists"]
    assert listed["name"] == "mine" and listed["ids"] == 2 and len(listed["sha256"]) == 64
    whole = open_corpus(blocked.model_copy(update={"decontaminate": False}))
    assert len(whole.train) == 4
    assert [
        item["name"] for item in open_corpus(settings(path, source="pubmed", **held)).decontamination[0]["block_lists"]
    ] == [
        "bc5cdr_test",
        "ncbi_disease_test",
        "pubmedqa_test",
    ]


def test_test_records_are_never_blocked(tmp_path: Path) -> None:
    for name, pmid in (("train", 1), ("test", 2)):
        (tmp_path / f"{name}.txt").write_text(f"{pmid}|t|Title {pmid}\n{pmid}|a|{sentence(pmid)}\n")
    write_block_list(tmp_path / "list.block", ["pmid:1", "pmid:2"], "both")
    here = settings(
        tmp_path, source="bc5cdr", paths=[str(tmp_path / "*.txt")], block_lists=[str(tmp_path / "list.block")]
    )
    with pytest.raises(DataError, match=r"nothing is left to train on: 2 read, 1 kept; dropped: blocked 1"):
        open_corpus(here)
    assert [record.uid for record in open_heldout(here, "test")] == ["pmid:2"]


def test_block_lists_are_checked(tmp_path: Path) -> None:
    assert shipped() == ["bc5cdr_test", "ncbi_disease_test", "pubmedqa_test"]
    with pytest.raises(SettingsError, match="did you mean 'pubmedqa_test'"):
        load_block_list("pubmedqa_tset")
    (tmp_path / "bad.txt").write_text("# mine\n12345\n")
    with pytest.raises(DataError, match="16 hexadecimal") as caught:
        load_block_list(str(tmp_path / "bad.txt"))
    assert (caught.value.where or "").endswith("bad.txt:2")


@needs_real
@pytest.mark.parametrize("name", ["bc5cdr_test", "ncbi_disease_test", "pubmedqa_test"])
def test_the_shipped_lists_are_those_of_the_published_test_sets(name: str) -> None:
    pmids = (REAL / "blocklists" / f"{name}_pmids.txt").read_text().split()
    assert load_block_list(name).ids == {hashed(f"pmid:{pmid}") for pmid in pmids}


@pytest.mark.parametrize(
    "name",
    ["test.jsonl", "test.jsonl.gz", "test.json", "test.csv", "test.txt", "test.xml", "test.zip", "conll:test.tsv"],
)
def test_a_run_of_13_words_shared_with_a_test_file_is_taken_out(name: str, tmp_path: Path) -> None:
    text = sentence(5, 60)
    shared = " ".join(text.split()[20:33])
    content = {
        "test.jsonl": json.dumps({"a": [{"b": f"Well: {shared.upper()}!"}, 7]}) + "\n",
        "test.csv": f'id,text\n1,"{shared}"\n',
        "test.json": json.dumps([{"a": shared}], indent=2),
        "test.txt": "intro\n\n" + shared.replace(" ", "\n", 6) + "\n\nmore",
        "test.zip": "intro\n\n" + shared.replace(" ", "\n", 6) + "\n",
        "test.xml": f"<a>\n<b>{shared.replace(' ', chr(10), 6)}</b>\n</a>",
        "test.tsv": "".join(f"{word}\tO\n" for word in shared.split()),
    }[name.removesuffix(".gz").removeprefix("conll:")]
    raw = content.encode()
    source, _, name = name.rpartition(":")
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("inner.txt", raw)
    else:
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    (tmp_path / "less.txt").write_text(" ".join(text.split()[20:32]) + "\n\n" + sentence(99, 20))
    rows = write(tmp_path / "rows.jsonl", [{"uid": "a", "text": text}, {"uid": "b", "text": sentence(6)}])
    held = {"validation_share": 0, "test_share": 0}
    given = f"{source}:{tmp_path / name}" if source else str(tmp_path / name)
    corpus = open_corpus(settings(rows, test_files=[given], **held))
    assert [record.uid for record in corpus.train] == ["b"]
    assert corpus.tally.dropped == {"test_overlap": 1}
    assert corpus.decontamination[0]["test_files"][0]["name"] == name
    less = open_corpus(settings(rows, test_files=[str(tmp_path / "less.txt")], **held))
    assert len(less.train) == 2 and less.decontamination[0]["test_files"][0]["too_short"] == 1


def test_a_test_file_that_is_not_there_or_not_readable_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"no such file: .*gone\.jsonl"):
        load_test_file(str(tmp_path / "gone.jsonl"))
    (tmp_path / "tags.tsv").write_text("token\ttag\n" + "Iron\tO\n" * 40)
    with pytest.raises(DataError, match="nothing in the file can be compared: 80 texts, none of 13 words"):
        load_test_file(str(tmp_path / "tags.tsv"))
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match="the file is not JSON, or ends early"):
        load_test_file(str(tmp_path / "bad.jsonl"))


def test_a_test_file_is_read_with_the_settings_of_tables(tmp_path: Path) -> None:
    words = " ".join(f"fi\u00e8vre{n}" for n in range(20))
    for name in ("rows.csv", "test.csv", "test.txt"):
        (tmp_path / name).write_bytes(f"uid~text\na~{words}\nb~Sans rapport.\n".encode("latin-1"))
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": words.replace("9", "8")}) + "\n")
    table = {"encoding": "latin-1", "delimiter": "~", "validation_share": 0, "test_share": 0}
    for name in ("test.csv", "custom:test.csv"):
        source, _, file = name.rpartition(":")
        given = f"{source}:{tmp_path / file}" if source else str(tmp_path / file)
        corpus = open_corpus(settings(tmp_path / "rows.csv", test_files=[given], **table))
        assert [record.uid for record in corpus.train] == ["b"]


def passages(name: str, count: int) -> list[Passage]:
    return [Passage(f"{name}{n}", f"{name}{n}", name, f"{name} {n}") for n in range(count)]


@pytest.mark.parametrize(
    ("strategy", "rows"), [("first_exhausted", {"a": 75, "b": 25}), ("all_exhausted", {"a": 1200, "b": 400})]
)
def test_a_mixture_has_its_shares_and_its_seed(strategy: Any, rows: dict[str, int]) -> None:
    parts = [Ingredient("a", 3, passages("a", 75)), Ingredient("b", 1, passages("b", 400))]
    records, shares = mix(parts, strategy, 7)
    assert {one.name: one.rows for one in shares} == rows
    assert [one.share for one in shares] == [0.75, 0.25]
    assert mix(parts, strategy, 7)[0] == records != mix(parts, strategy, 8)[0]
    repeats = {record.uid: sum(other.uid == record.uid for other in records) for record in records[:50]}
    assert set(repeats.values()) <= ({1} if strategy == "first_exhausted" else {1, 16})


def test_sources_are_mixed_over_train_parts_and_no_held_out_item_is_trained_on(tmp_path: Path) -> None:
    questions = {
        str(n): {"QUESTION": f"Is it {n}?", "CONTEXTS": [sentence(n)], "final_decision": "yes", "LONG_ANSWER": "Yes."}
        for n in range(1, 41)
    }
    (tmp_path / "qa.json").write_text(json.dumps(questions))
    pubmed(tmp_path / "a.xml", *range(1, 101))
    here = settings(
        tmp_path / "qa.json",
        source="pubmedqa",
        test_share=0.25,
        validation_share=0.25,
        mix=[{"source": "pubmed", "paths": [str(tmp_path / "a.xml")], "weight": 2.0}],
    )
    corpus = open_corpus(here)
    held = {record.group for record in (*corpus.validation, *open_heldout(here, "test"))}
    assert not held & {record.group for record in corpus.train}
    rows = {one["name"]: one["rows"] for one in corpus.mixture}
    assert rows["pubmed"] == 2 * rows["pubmedqa"] > 20 and sum(rows.values()) == len(corpus.train)
    assert corpus.templates == {"pubmedqa": "pubmedqa", "pubmed": "text"} and corpus.template == "pubmedqa"
    assert list(corpus.hashes) == ["1. pubmedqa: qa.json", "2. pubmed: a.xml"]
    assert [one["source"] for one in corpus.decontamination] == ["pubmedqa", "pubmed", "between the sources"]
    assert {record.source for record in corpus.validation} == {"pubmedqa", "pubmed"}


def test_what_one_source_holds_out_leaves_the_training_part_of_another(tmp_path: Path) -> None:
    """The same patients in two sources, and near-copies of one source's test in the other."""
    for name in "ab":
        (tmp_path / name).mkdir()
    patients = [{"uid": f"n{n}", "group": f"p{n % 40}", "text": sentence(n)} for n in range(80)]
    patients += [{"uid": f"c{n}", "group": f"a{n}", "text": sentence(n) + " end"} for n in range(10)]
    write(tmp_path / "a" / "rows.jsonl", patients)
    write(
        tmp_path / "b" / "rows.jsonl",
        [{"uid": f"n{n}", "group": f"p{n}", "text": sentence(n + 100)} for n in range(40)]
        + [{"uid": f"x{n}", "group": f"x{n}", "text": sentence(n + 20) + " more"} for n in range(20)],
    )
    here = settings(
        tmp_path / "a" / "rows.jsonl",
        test_share=0.3,
        validation_share=0.2,
        mix=[{"source": "custom", "paths": [str(tmp_path / "b" / "rows.jsonl")]}],
        stopping_strategy="all_exhausted",
    )
    opened = open_splits(here)
    held = [
        (place, part, record)
        for place, parts in enumerate(opened.sources)
        for part in ("train", "validation", "test")
        for record in parts.records[part]
    ]
    for place, part, record in held:
        words = set(record.text.split()[:40])
        for other_place, other_part, other in held:
            if (place, part) != (other_place, other_part) and part != other_part:
                assert record.group != other.group
                assert words != set(other.text.split()[:40])
    corpus = open_corpus(here)
    assert {record.uid for record in corpus.train} == {record.uid for _, part, record in held if part == "train"}
    between = corpus.decontamination[-1]["removed"]
    assert between["leak"] > 0 and between["near_duplicate"] > 0
    assert corpus.tally.kept == len(held) == corpus.tally.read - sum(corpus.tally.dropped.values())
    assert list(corpus.hashes) == ["1. custom: rows.jsonl", "2. custom: rows.jsonl"]
    assert len(set(corpus.hashes.values())) == 2


def test_a_mixture_that_cannot_be_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": sentence(n)} for n in range(20)])
    twice = {"source": "custom", "paths": [str(path)], "template": "title"}
    with pytest.raises(SettingsError, match="mixed in with two templates, 'text' and 'title'"):
        open_corpus(settings(path, mix=[twice]))
    with pytest.raises(ValueError, match="a mixture draws from complete training splits"):
        settings(path, mix=[twice], streaming=True)
