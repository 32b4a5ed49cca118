"""Decontamination on disk gives what it gives in memory: the same removed, moved, sizes, clusters and refusals."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as some

from lora_med.data.record import Passage, Record, Split
from lora_med.data.splitting.block_lists import BlockList, hashed
from lora_med.data.splitting.leakage import Decontamination, Rules, decontaminate
from lora_med.data.splitting.near_duplicates import BAND, PERMUTATIONS, Signatures, clusters, signatures
from lora_med.data.splitting.on_disk.array_links import ArrayLinks
from lora_med.data.splitting.on_disk.duckdb_connection import connect
from lora_med.data.splitting.on_disk.signature_files import SignatureFiles
from lora_med.data.splitting.scanned import TRAINING_ORDER
from lora_med.data.splitting.splits import split_of_group
from lora_med.errors import DataError
from tests.data.test_leakage import changed, sentence

pytest.importorskip("duckdb")

Assigned = list[tuple[int, Split, Record]]
PUBLISHED: frozenset[Split] = frozenset(TRAINING_ORDER)
Leaks = Literal["error", "drop"]


def on_disk(marks: Signatures, similarity: float, batch: int = 1000) -> list[list[int]]:
    with tempfile.TemporaryDirectory() as folder:
        files = SignatureFiles(Path(folder))
        for start in range(0, len(marks), batch):
            files.append(marks[start : start + batch])
        sets: dict[int, list[int]] = defaultdict(list)
        for items, leaders in files.link(connect(Path(folder)), similarity).linked():
            for item, leader in zip(items.tolist(), leaders.tolist(), strict=True):
                sets[leader].append(item)
        return [[leader, *sets[leader]] for leader in sorted(sets)]


def outcome(assigned: Assigned, rules: Rules, fixed: frozenset[Split], held: int) -> object:
    """What decontamination gives, as values that can be compared; a refusal as its message."""
    try:
        found = decontaminate(assigned, rules, fixed, held=held)
    except DataError as error:
        return error.what
    return (
        list(found.removed.items()),
        dict(found.moved),
        found.sizes,
        found.clusters,
        found.counts(),
        found.as_json(),
        [found.final_split(record, split, origin) for origin, split, record in assigned],
    )


def test_near_duplicates_from_files_are_those_in_memory() -> None:
    texts = [sentence(seed, 60) for seed in range(400)]
    texts += [changed(texts[number], 30) for number in range(0, 400, 3)] + ["", "a", "A!", ""]
    texts += [texts[5]] * 120  # more than are compared with each other
    random.Random(1).shuffle(texts)
    marks = signatures(texts)
    for similarity in (0.3, 0.8, 1.0):
        assert on_disk(marks, similarity) == clusters(marks, similarity) != []
    assert on_disk(signatures([]), 0.8) == []
    assert on_disk(signatures(["a", "b"]), 0.8) == []


def test_of_many_texts_in_a_band_each_is_compared_with_the_first() -> None:
    draw = np.random.default_rng(0)
    marks = draw.integers(0, 2**32, (60, PERMUTATIONS), dtype=np.uint32)
    marks[:, :BAND] = marks[0, :BAND]  # all share the first band, and no other
    alike = np.arange(PERMUTATIONS) % BAND > 0
    marks[::2, alike] = marks[0, alike]  # every second one is like the first in three numbers of four
    assert on_disk(marks, 0.7) == clusters(marks, 0.7) == [list(range(0, 60, 2))]


@tried(max_examples=12, deadline=None)
@given(seed=some.integers(0, 2**32), texts=some.integers(2, 200), kinds=some.integers(1, 4))
def test_near_duplicates_of_any_signatures_are_those_in_memory(seed: int, texts: int, kinds: int) -> None:
    draw = np.random.default_rng(seed)
    base = draw.integers(0, 2**32, (kinds, PERMUTATIONS), dtype=np.uint32)
    marks = base[draw.integers(0, kinds, texts)]
    is_other = draw.random((texts, PERMUTATIONS // BAND)) < draw.random((texts, 1))
    marks = np.where(np.repeat(is_other, BAND, axis=1), draw.integers(0, 3, marks.shape, dtype=np.uint32), marks)
    assert on_disk(marks, 0.5, batch=37) == clusters(marks, 0.5)


@tried(max_examples=12, deadline=None)
@given(
    rows=some.lists(
        some.tuples(some.integers(0, 2), some.integers(0, 25), some.integers(0, 25), some.integers(0, 3)),
        min_size=1,
        max_size=60,
    ),
    leaks=some.sampled_from(("error", "drop")),
    fixed=some.sampled_from((frozenset[Split](), frozenset[Split](["test"]), PUBLISHED)),
    similarity=some.sampled_from((0.0, 0.7)),
    has_groups_in_one_split=some.booleans(),
)
def test_any_records_are_decontaminated_on_disk_as_in_memory(
    rows: list[tuple[int, int, int, int]],
    leaks: Leaks,
    fixed: frozenset[Split],
    similarity: float,
    has_groups_in_one_split: bool,
) -> None:
    assigned: Assigned = []
    for number, (split, group, text, place) in enumerate(rows):
        words = changed(sentence(text, 60), place * 10) if place else sentence(text, 60)
        part = TRAINING_ORDER[group % 3 if has_groups_in_one_split else split]
        assigned.append((0, part, Passage(f"u{number}", f"gé{group}", "custom", words)))
    blocked = BlockList("some", "0", frozenset({hashed("u1"), hashed("u7")}))
    rules = Rules(leaks, similarity, (blocked,))
    assert outcome(assigned, rules, fixed, 0) == outcome(assigned, rules, fixed, 10**9)


def many(count: int) -> Assigned:
    """Records of which every ninth resembles an earlier one, in groups of three."""
    draw = random.Random(7)
    texts: list[str] = []
    for number in range(count):
        texts.append(
            changed(draw.choice(texts[-500:]), draw.randrange(60)) if number % 9 == 8 else sentence(number, 60)
        )
    return [
        (0, split_of_group(f"g{number // 3}", 42, 0.1, 0.1), Passage(f"u{number}", f"g{number // 3}", "custom", text))
        for number, text in enumerate(texts)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("leaks", ["error", "drop"])
def test_thirty_thousand_records_are_decontaminated_on_disk_as_in_memory(leaks: Leaks) -> None:
    assigned = many(30_000)
    here = outcome(assigned, Rules(leaks, 0.8), frozenset(), 10**9)
    assert outcome(assigned, Rules(leaks, 0.8), frozenset(), 0) == here
    assert isinstance(here, tuple) and here[3] > 2000 and len(here[0] if leaks == "drop" else here[1]) > 300


def test_the_threshold_is_the_number_of_records_that_are_held() -> None:
    def found(held: int) -> Decontamination:
        return decontaminate(assigned, Rules("drop"), PUBLISHED, held=held)

    assigned: Assigned = [
        (0, "train", Passage(f"u{number}", f"g{number}", "custom", f"t{number}")) for number in range(9)
    ]
    assert isinstance(found(9).removed, dict)
    assert not isinstance(found(8).removed, dict)
    assert found(8).sizes == found(9).sizes == {"train": 9, "validation": 0, "test": 0}


def test_nothing_stays_on_disk_when_the_result_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assigned: Assigned = [(0, split, Passage(split, "g", "custom", sentence(1))) for split in ("train", "test")]
    found = decontaminate(assigned, Rules("drop", 0.8), PUBLISHED, held=0)
    [folder] = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"moved.parquet", "removed.parquet"}
    assert dict(found.removed) == {(0, "train", "train"): "leak"}
    del found
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="1 of train share a group or content with test"):
        decontaminate(assigned, Rules("error", 0.8), PUBLISHED, held=0)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from lora_med.data.record import Passage
from lora_med.data.splitting.leakage import Rules, decontaminate
def records():
    for number in range(9000):
        yield 0, ("train", "test")[number % 2], Passage(f"u{number}", f"g{number}", "custom", f"text {number}")
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("written", flush=True)
    sys.stdin.read()
decontaminate(records(), Rules("drop", 0.8), frozenset(), held=0)
"""


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_running_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED, how]
        return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    assert started("kill").wait() == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert (left / "facts.duckdb").is_file()
    running = started("wait")
    assert running.stdout is not None and running.stdout.readline() == "written\n"
    [of_running] = tmp_path.iterdir()
    assert of_running != left
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    decontaminate([(0, "train", Passage("u", "g", "custom", "t"))], Rules("drop", 0.8), frozenset(), held=0)
    assert list(tmp_path.iterdir()) == [of_running]
    running.communicate("")
    assert running.returncode == 0 and list(tmp_path.iterdir()) == []


def test_without_duckdb_the_work_is_done_in_memory_and_the_command_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "duckdb" else found(name))
    assigned: Assigned = [(0, split, Passage(split, "g", "custom", "same")) for split in ("train", "test")]
    assert decontaminate(assigned, Rules("drop"), PUBLISHED, held=0).removed == {(0, "train", "train"): "leak"}
    assert 'pip install "lora_med[scale]"' in caplog.text


def test_the_smallest_leads_whatever_the_order_of_links(tmp_path: Path) -> None:
    links = ArrayLinks(tmp_path / "links", 8)
    links.join(np.array([7, 5, 2]), np.array([5, 2, 6]))
    links.join(np.array([3, 3]), np.array([4, 4]))
    assert links.leaders(np.arange(8)).tolist() == [0, 1, 2, 3, 3, 2, 2, 2]
    assert [(items.tolist(), leaders.tolist()) for items, leaders in links.linked()] == [([4, 5, 6, 7], [3, 2, 2, 2])]
