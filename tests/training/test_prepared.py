"""Prepared documents come back as they were, are known by what they depend on, and are made again if damaged."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lora_med.config.parse import parse
from lora_med.data.corpus import open_corpus
from lora_med.prompts.tokens import Tokens
from lora_med.training.prepared import data_key, load, prepared_path, save
from tests.recipes.test_sft import overrides, recipe
from tests.tiny import make_tiny


def documents(count: int, length: int = 300) -> list[Tokens]:
    return [
        Tokens(
            f"u{n}",
            list(range(n, n + length)),
            [False] * 9 + [True] * (length - 9),
            n % 2 == 0,
            n % 3 == 0,
            (5,),
            "drop",
            n,
        )
        for n in range(count)
    ]


def test_documents_come_back_as_they_were(tmp_path: Path) -> None:
    path = prepared_path(tmp_path, "key", 1)
    assert load(path) is None
    for held in (documents(7), [], [Tokens("é", [], [])]):
        save(path, held)
        assert load(path) == held


def test_twenty_thousand_pairs_are_there_within_a_second(tmp_path: Path) -> None:
    path = prepared_path(tmp_path, "key")
    save(path, documents(20_000))
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        assert len(load(path) or []) == 20_000
        times.append(time.perf_counter() - begun)
    assert min(times) < 1


@pytest.mark.parametrize("damage", [b"", b"PK", b"junk" * 100])
def test_a_damaged_file_is_no_documents(tmp_path: Path, damage: bytes) -> None:
    path = prepared_path(tmp_path, "key")
    save(path, documents(3))
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert load(path) is None
    path.write_bytes(whole[: len(whole) // 2])
    assert load(path) is None


def test_a_key_is_that_of_data_and_settings_and_not_of_places(tmp_path: Path) -> None:
    rows = [{"text": f"text number {n}", "uid": str(n)} for n in range(60)]
    keys = {}
    for name, changed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        kept = rows if not changed else [*rows[:-1], {"text": "another", "uid": "59"}]
        (tmp_path / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        for template in ("text", "title"):
            settings = parse(
                None, ["data.source=custom", f"data.paths=[{tmp_path / name}]", f"data.template={template}"]
            )
            keys[name, template] = data_key(settings, open_corpus(settings.data))
    assert keys["a", "text"] == keys["b", "text"]
    assert len({keys["a", "text"], keys["c", "text"], keys["a", "title"]}) == 3


def test_a_second_run_takes_what_the_first_prepared(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base", context=4096)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"text number {n}"}) + "\n" for n in range(60)))
    data = ["data.source=custom", f"data.paths=[{path}]", "data.validation_share=0.3"]
    written: list[dict[str, int]] = []
    for overwrite in ("false", "true"):
        recipe("sft_task").main(parse(None, [*data, *overrides(base, tmp_path), f"adapter.overwrite={overwrite}"]))
        written.append({one.name: one.stat().st_mtime_ns for one in (tmp_path / "run" / "prepared").iterdir()})
    assert written[0] == written[1] and len(written[0]) == 2
