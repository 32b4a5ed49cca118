"""What `data check` counts, what credentialed work may show and to whom, and contexts fitted to the token."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_med.audit import data_check as check
from lora_med.audit.data_check import Check, check_data
from lora_med.cli.main import run
from lora_med.config.parse import parse
from lora_med.data.record import Question
from lora_med.evaluation.report.write_report import write_report
from lora_med.merge.merge import merge_adapter
from lora_med.prompts.fit import fit_rows
from lora_med.prompts.render import render
from lora_med.prompts.tokens_and_labels import tokenize_rows
from tests.audit.test_private import CANARY, PERMISSION, everything, modes, notes
from tests.data.test_pubmedqa import made_up
from tests.evaluation.published import publish_random
from tests.evaluation.test_report import choice_evaluation, text_evaluation
from tests.tiny import make_tiny, make_tokenizer


@pytest.fixture
def open_umask() -> Iterator[None]:
    """New files are readable by all, unless made otherwise."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def rows(path: Path, texts: list[str]) -> Path:
    found = [{"uid": f"{path.stem}{n}", "group": f"{path.stem}{n}", "text": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def checked(*overrides: str) -> Check:
    return check_data(parse(None, list(overrides)), make_tokenizer())[0]


def here(path: Path, *, validation: float = 0.0, test: float = 0.0) -> list[str]:
    shares = [f"data.validation_share={validation}", f"data.test_share={test}"]
    return [
        "data.source=custom",
        "adapter.access=open",
        f"data.paths=[{path}]",
        "data.near_duplicate_similarity=0",
        *shares,
    ]


def test_the_tokens_that_contexts_lose_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({pmid: item | {"CONTEXTS": ["x" * 300]} for pmid, item in made_up(12).items()}), encoding="utf-8"
    )
    base = ["data.source=pubmedqa", f"data.paths=[{path}]", "data.validation_share=0", "data.test_share=0"]
    (source,) = checked(*base, "data.template=pubmedqa", "train.too_long=trim_context", "train.max_length=200").sources
    asked = [
        Question("q", "q", "pubmedqa", item["QUESTION"], item["final_decision"], ("x" * 300,), ("yes", "no", "maybe"))
        for item in made_up(12).values()
    ]
    sizes = [len(f"{row.prompt}{row.completion}") + 2 for row in render(asked, "pubmedqa")]  # BOS and the end of text
    found = source.lengths["train"]
    assert found.rows == found.too_long == 12 and found.tokens == sum(sizes)
    assert found.context_tokens_lost == sum(size - 200 for size in sizes) > 1000


def test_records_with_identifiers_are_counted_and_the_first_named(tmp_path: Path) -> None:
    texts = [f"Iron number {n} is old." for n in range(20)]
    for n in range(4, 11):
        texts[n] += f" Write to someone{n}@example.org."
    texts[4] += " MRN: 4711555"
    (source,) = checked(*here(rows(tmp_path / "a.jsonl", texts))).sources
    assert source.identifiers == {"EMAIL": 7, "ID": 1}
    assert source.records_with_identifiers == 7
    assert source.uids_with_identifiers == ("a4", "a5", "a6", "a7", "a8")


def test_what_one_source_of_a_mixture_takes_from_another_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"Iron number {n} is old." for n in range(60)]
    first = rows(tmp_path / "a.jsonl", texts)
    second = rows(tmp_path / "b.jsonl", texts)
    mixed = [*here(first, validation=0.3), f"data.mix=[{{source: custom, paths: [{second}]}}]"]
    both = checked(*mixed)
    assert both.between is not None and both.between["removed"].keys() == {"leak"}
    left = both.between["removed"]["leak"]
    assert left > 0 and left == sum(one.tally.kept - sum(one.sizes.values()) for one in both.sources)
    assert [one["name"] for one in both.mixture] == ["custom", "custom"]
    assert checked(*here(first)).between is None
    assert run(["data", "check", *mixed, f"model.base={make_tiny('llama', tmp_path / 'base')}"]) == 0
    assert f"between      left out because another source holds it out: {left:,} leak" in capsys.readouterr().out


def test_what_was_looked_at_of_many_records_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MOST_RECORDS", 25)
    texts = [f"Iron number {n}, write to a{n}@example.org." for n in range(100)]
    (source,) = checked(*here(rows(tmp_path / "a.jsonl", texts), validation=0.1, test=0.4)).sources
    assert sum(source.sizes.values()) == 100 and source.sizes["train"] > 25 > source.sizes["validation"] > 0
    wanted = {part: min(25, size) for part, size in source.sizes.items()}
    assert source.looked_at == wanted
    assert {part: found.rows for part, found in source.lengths.items()} == wanted
    assert source.identifiers == {"EMAIL": sum(wanted.values())}


def test_a_preview_of_credentialed_data_shows_no_row_unless_permitted_and_its_page_is_private(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], open_umask: None
) -> None:
    base = make_tiny("llama", tmp_path / "base", context=4096)
    data = ["data.source=mimic3", f"data.paths=[{notes(tmp_path)}]", f"model.base={base}"]
    page = tmp_path / "out" / "page.html"
    preview = ["data", "preview", *data, "--out", str(page), "--json"]
    assert run(preview) == 0
    said = capsys.readouterr().out
    assert json.loads(said)["rows"] == [] and CANARY not in said
    assert CANARY.encode() not in everything(page.parent)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    page.unlink()
    assert run([*preview, "--permission", PERMISSION]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 3
    assert CANARY in page.read_text() and stat.S_IMODE(page.stat().st_mode) == 0o600


@pytest.mark.parametrize("others", [0, 1])
def test_a_report_on_credentialed_data_is_its_owners_alone(tmp_path: Path, others: int, open_umask: None) -> None:
    private = dataclasses.replace(text_evaluation(count=10), access="credentialed")
    write_report([private, *[choice_evaluation()] * others], tmp_path / "out", title="Notes")
    items = "items_1_text.jsonl" if others else "items.jsonl"
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    found.pop("items_2_pubmedqa.jsonl", None)
    assert found == dict.fromkeys(("report.html", "report.json", "report.md", items), 0o600)


def test_what_a_credentialed_adapter_is_merged_into_is_its_owners_alone(tmp_path: Path, open_umask: None) -> None:
    base = make_tiny("llama", tmp_path / "base")
    publish_random(base, "mine", tmp_path / "store", source="mimic3", access="credentialed")
    merged = merge_adapter("mine", tmp_path / "merged", base=str(base), store=tmp_path / "store")
    assert (merged.folder / "model.safetensors").is_file()
    assert modes(merged.folder) == {0o700, 0o600}


@pytest.mark.parametrize("letters", ["é" * 200, "漢" * 140, "🩺" * 100, "a🩺é漢" * 40])
def test_a_context_of_letters_of_several_tokens_is_shortened_to_any_length(letters: str) -> None:
    tokenizer = make_tokenizer()
    record = Question("q", "g", "pubmedqa", "Is iron a metal?", "yes", (letters,), ("yes", "no", "maybe"))
    row = render([record], "pubmedqa", "trim_context")[0]
    (whole,) = tokenize_rows([row], tokenizer)
    for max_length in range(200, 212):
        (fitted,) = fit_rows([row], tokenizer, max_length)
        size = len(fitted.input_ids)
        assert max_length - 4 < size <= max_length < len(whole.input_ids)
        assert fitted.lost == len(whole.input_ids) - size
