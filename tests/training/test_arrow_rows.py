"""Rows on disk are the rows in memory, bit for bit: order, packing, batches and losses, however many processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.config.schema import TrainSettings
from lora_med.data.record import Annotated, Passage, Question, Record, Span
from lora_med.errors import DataError, PreflightError
from lora_med.models.base import Base
from lora_med.models.generation import stop_ids
from lora_med.training.preparation import token_files
from lora_med.training.preparation.row_files import RowFile, write_row_file
from lora_med.training.preparation.row_kinds import RowKind, TagRows, TextRows
from lora_med.training.rows.arrow_rows import ArrowRows, hash_rows, open_arrow_rows
from lora_med.training.rows.batches import COLUMNS, Collator, Share, load_rows
from lora_med.training.rows.documents import read_documents
from lora_med.training.rows.training_rows import rows_in_memory
from lora_med.training.tag_trainer import read_tagged
from tests.training.support import make_base, make_trainer, weights

LABELS = ("O", "B-Disease", "I-Disease")


@pytest.fixture(scope="module")
def base() -> Base:
    return make_base()


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "BLOCK_RECORDS", 16)


def passages(count: int = 90) -> list[Record]:
    return [
        Passage(f"u{n}", f"g{n}", "custom", f"Text {n} " + f"word{n % 7} " * (n % 23), f"Title {n}")
        for n in range(count)
    ]


def questions(count: int = 90) -> list[Record]:
    contexts = ["iron is a metal that rusts in the rain " * 2, "water is wet and flows down the hill " * 2]
    return [
        Question(f"q{n}", f"g{n}", "custom", f"question {n}?", ("yes", "no")[n % 2], (contexts[n % 2],), ("yes", "no"))
        for n in range(count)
    ]


def notes(count: int = 90) -> list[Record]:
    found: list[Record] = []
    for n in range(count):
        text = f"w{n % 7} has GOUT or x{n % 5}. " * (1 + n % 4)
        start = text.index("GOUT")
        found.append(Annotated(f"n{n}", f"n{n}", "s", text, (Span(start, start + 4, "Disease", "GOUT"),)))
    return found


def text_rows(base: Base, train: TrainSettings, template: str = "text", **changes: Any) -> TextRows:
    kind = TextRows(
        template=template,
        tokenizer=base.tokenizer,
        max_length=train.max_length,
        too_long=train.too_long,
        assistant_turns="last",
        skip_bad=False,
        allow_rows_dropped=0.0,
        stops=frozenset(stop_ids(base.model, base.tokenizer)),
        begin=1,
        access="open",
    )
    return replace(kind, **changes)


def on_disk(
    records: Sequence[Record], kind: RowKind, train: TrainSettings, path: Path, processes: int = 1
) -> ArrowRows:
    write_row_file(records, RowFile(path, kind, "training", train.packing, train.share_context), processes)
    rows = open_arrow_rows(path)
    assert rows is not None
    return rows


CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "text": (passages, "text", {}),
    "packed text": (passages, "text", {"packing": True}),
    "questions": (questions, "pubmedqa_chat_v2", {"max_length": 512}),
    "packed questions": (questions, "pubmedqa_chat_v2", {"max_length": 512, "packing": True}),
    "shared prefixes": (questions, "pubmedqa", {"max_length": 512, "share_context": True}),
    "packed shared prefixes": (questions, "pubmedqa", {"max_length": 1024, "share_context": True, "packing": True}),
    "entities": (notes, "entities", {"max_length": 512, "packing": True}),
}


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_rows_on_disk_are_those_in_memory(base: Base, tmp_path: Path, case: str, processes: int) -> None:
    make, template, changes = CASES[case]
    records = make()
    train = TrainSettings(**{"max_length": 96, **changes})
    checked = read_documents(records, template, base, train, access="open")
    expected = rows_in_memory(list(checked.documents), train)
    rows = on_disk(records, text_rows(base, train, template), train, tmp_path / "rows", processes)
    assert rows.rows.features == expected.features
    assert rows.rows.to_list() == expected.to_list()
    assert rows.digest == hash_rows(rows.rows) == hash_rows(expected)
    assert rows.report == checked.report
    assert rows.sample() == checked.sample()
    assert ("shared_prefixes" in rows.rows.features) == bool(changes.get("share_context"))


@pytest.mark.parametrize("processes", [1, 2])
def test_tagged_rows_on_disk_are_those_in_memory(tmp_path: Path, processes: int) -> None:
    base = replace(make_base(), labels=LABELS)
    train = TrainSettings(max_length=24)
    expected = read_tagged(notes(), base, train)
    kind = TagRows(base.tokenizer, train.max_length, LABELS)
    rows = on_disk(notes(), kind, train, tmp_path / "rows", processes)
    assert rows.rows.to_list() == rows_in_memory(expected.rows, train).to_list()
    assert rows.report == expected.report
    assert rows.trained_tokens == sum(sum(row.trained) for row in expected.rows)


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_are_the_same_for_each_process(base: Base, tmp_path: Path, processes: int) -> None:
    train = TrainSettings(max_length=96, packing=True)
    expected = rows_in_memory(list(read_documents(passages(), "text", base, train, access="open").documents), train)
    rows = on_disk(passages(), text_rows(base, train), train, tmp_path / "rows")
    for rank in range(processes):
        loaders = [
            load_rows(each, Collator(0, flat=True, unmasked=True), batch_size=3, share=Share(rank, processes), seed=7)
            for each in (rows.rows, expected)
        ]
        for ours, theirs in zip(*loaders, strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ("input_ids", "labels", "position_ids"))


def test_a_run_on_rows_on_disk_is_bit_identical_to_one_in_memory(tmp_path: Path) -> None:
    train = TrainSettings(max_length=128, packing=True)
    results = []
    for name in ("disk", "memory"):
        base = make_base()
        torch.manual_seed(3)
        documents = list(read_documents(passages(), "text", base, train, access="open").documents)
        rows: Any = documents
        if name == "disk":
            rows = on_disk(passages(), text_rows(base, train), train, tmp_path / "rows")
        trainer = make_trainer(
            tmp_path / name, base=base, train=rows, validation=documents[:9], packing=True, max_steps=4
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        results.append((weights(trainer), losses, trainer.identity["the training rows (SHA-256)"]))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]


def test_rows_on_disk_are_mapped_and_have_the_columns_of_memory(base: Base, tmp_path: Path) -> None:
    train = TrainSettings(max_length=96)
    rows = on_disk(passages(), text_rows(base, train), train, tmp_path / "rows")
    assert rows.rows.cache_files == [{"filename": str(tmp_path / "rows.rows.arrow")}]
    assert rows.rows.features == COLUMNS
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert {path.name for path in tmp_path.iterdir()} == {"rows.rows.arrow", "rows.rows.json"}


@pytest.mark.parametrize("damage", ["shorter", "longer", "other bytes", "no facts", "facts cut"])
def test_rows_that_are_not_as_they_were_written_are_not_opened(base: Base, tmp_path: Path, damage: str) -> None:
    train = TrainSettings(max_length=96)
    rows = on_disk(passages(), text_rows(base, train), train, tmp_path / "rows")
    file, facts = tmp_path / "rows.rows.arrow", tmp_path / "rows.rows.json"
    content = bytearray(file.read_bytes())
    if damage == "other bytes":
        token = rows.rows[0]["input_ids"][5]
        start = content.index(token.to_bytes(4, "little"), len(content) // 3)
        content[start] ^= 1
    file.write_bytes({"shorter": content[:-8], "longer": content + b"0"}.get(damage, bytes(content)))
    if damage == "no facts":
        facts.unlink()
    elif damage == "facts cut":
        facts.write_bytes(facts.read_bytes()[:-20])
    else:
        os.utime(file, ns=(1, 1))
    assert open_arrow_rows(tmp_path / "rows") is None


def test_rows_that_were_copied_with_their_folder_are_opened(base: Base, tmp_path: Path) -> None:
    train = TrainSettings(max_length=96)
    on_disk(passages(), text_rows(base, train), train, tmp_path / "rows")
    os.utime(tmp_path / "rows.rows.arrow", ns=(1, 1))
    assert open_arrow_rows(tmp_path / "rows") is not None


@pytest.mark.parametrize("processes", [1, 3])
def test_the_first_error_is_that_of_the_first_record_and_nothing_remains(
    base: Base, tmp_path: Path, processes: int
) -> None:
    records = notes()
    for number, kind in ((70, "Late"), (40, "Early")):
        record = records[number]
        assert isinstance(record, Annotated)
        records[number] = replace(record, spans=(replace(record.spans[0], type=kind),))
    train = TrainSettings(max_length=96)
    with pytest.raises(DataError, match="Early"):
        on_disk(records, TagRows(base.tokenizer, 96, LABELS), train, tmp_path / "rows", processes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("processes", [1, 3])
def test_preflight_refuses_rows_as_it_does_in_memory(base: Base, tmp_path: Path, processes: int) -> None:
    records = [*questions(), *(replace(q, uid=f"long{q.uid}", contexts=("x" * 300,)) for q in questions(40))]  # type: ignore[arg-type]
    train = TrainSettings(max_length=256)
    with pytest.raises(PreflightError) as expected:
        read_documents(records, "pubmedqa", base, train, access="open")
    with pytest.raises(PreflightError) as caught:
        on_disk(records, text_rows(base, train, "pubmedqa"), train, tmp_path / "rows", processes)
    assert caught.value.as_json() == expected.value.as_json()
    assert not list(tmp_path.iterdir())
