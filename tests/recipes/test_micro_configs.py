"""Each micro config trains for two steps on a tiny base: what it names exists, and its rows can be learned from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_med.adapters.store.card import read_card
from lora_med.config.parse import parse
from tests.data.examples_texts import STUDY
from tests.recipes.test_sft import ROOT, recipe
from tests.tiny import make_tiny

REAL_ONLY = ("micro_pubmed", "micro_pubmedqa")  # tests of the recipes train these tasks already
CONFIGS = [
    path
    for path in sorted((ROOT / "lora_med" / "assets" / "configs").glob("micro_*.yaml"))
    if path.stem not in REAL_ONLY
]
RECIPES = {"micro_tags": "tag_entities", "micro_preferences": "dpo_task"}  # where sft_task is not the one
COUNT = 40


def _exam(folder: Path) -> None:
    options = {"opa": "One", "opb": "Two", "opc": "Three", "opd": "Four"}
    rows = [{"id": str(n), "question": f"Which of {n}?", "cop": n % 4 + 1, **options} for n in range(COUNT)]
    (folder / "train.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _pages(folder: Path) -> None:
    for n in range(COUNT):
        pair = f"<QAPair><Question qid='{n}-1'>What is number {n}?</Question><Answer>It is {n * n}.</Answer></QAPair>"
        (folder / f"{n:07}.xml").write_text(f"<Document id='{n}' source='X'><QAPairs>{pair}</QAPairs></Document>")


def _letters(folder: Path) -> None:
    rows = [f"{n}.txt,Hello. I have {n} or {n * 3} tablets left; who makes them?,Who makes {n}?" for n in range(COUNT)]
    (folder / "letters.csv").write_text("File,CHQ,Summary\n" + "\n".join(rows) + "\n")


def _studies(folder: Path) -> None:
    text = json.dumps(STUDY)
    studies = [json.loads(text.replace("NCT00000001", f"NCT{n:08}").replace("> 18", f"> {n}")) for n in range(COUNT)]
    (folder / "studies.json").write_text(json.dumps(studies))


def _labeled(folder: Path) -> None:
    rows = [
        f"Letter {n} asks for {('a refill', 'an appointment')[n % 2]}.,{('refill', 'visit')[n % 2]}"
        for n in range(COUNT)
    ]
    (folder / "labeled.csv").write_text("text,label\n" + "\n".join(rows) + "\n")


def _pairs(folder: Path) -> None:
    rows = [{"prompt": f"Dose {n}:", "chosen": f" {n} mg.", "rejected": f" {n + 1} g."} for n in range(COUNT)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


MADE: dict[str, Callable[[Path], None]] = {
    "micro_exam": _exam,
    "micro_consumer_qa": _pages,
    "micro_label": _labeled,
    "micro_question_summary": _letters,
    "micro_eligibility": _studies,
    "micro_preferences": _pairs,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=8192)


@pytest.mark.parametrize(
    "path",
    [path for path in CONFIGS if path.stem not in ("micro_pubmed", "micro_pubmedqa")],
    ids=lambda path: path.stem,
)
def test_the_config_trains(path: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    changes = [
        f"model.base={base}",
        "model.load_in_4bit=false",
        "model.dtype=float32",
        f"train.output_dir={tmp_path / 'run'}",
        "train.max_steps=2",
        "train.per_device_train_batch_size=2",
        "train.max_length=8192",  # a byte is a token here
        "lora.r=4",
        f"adapter.store={tmp_path / 'adapters'}",
    ]
    settings = parse(path)
    if path.stem in MADE:
        (tmp_path / "data").mkdir()
        MADE[path.stem](tmp_path / "data")
        changes += [f"data.paths=[{tmp_path / 'data'}]", "data.near_duplicate_similarity=0"]
    elif settings.data.mix == []:
        changes.append("data.max_records=40")
    settings = parse(path, changes)
    recipe(RECIPES.get(path.stem, "sft_task")).main(settings)
    card = read_card(tmp_path / "adapters" / settings.adapter.name)
    assert card.data.counts["train"] > 0 and card.data.separation
    assert bool(card.data.mixture) == bool(settings.data.mix)
