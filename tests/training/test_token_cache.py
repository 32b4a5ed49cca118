"""Prepared rows are known by what they depend on, and a second run opens those of the first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_med.config.parse import parse
from lora_med.config.schema import Settings, TrainSettings
from lora_med.data.corpus import Corpus, open_corpus
from lora_med.data.record import Pair, Passage
from lora_med.models.base import Base
from lora_med.models.fingerprint import Fingerprint
from lora_med.training.preparation import prepared_names as store
from lora_med.training.preparation.preparer import Preparer
from lora_med.training.preparation.row_kinds import TextRows
from lora_med.training.rows.documents import DocumentStream, tokenizer_marks
from lora_med.training.rows.prepared_rows import Preparation
from lora_med.training.rows.token_cache import data_key
from tests.recipes.test_sft import overrides, recipe
from tests.tiny import make_tiny, make_tokenizer
from tests.training.support import make_base


def test_a_key_is_that_of_data_and_settings_and_not_of_folders(tmp_path: Path) -> None:
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


def test_a_second_run_takes_what_the_first_cached(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base", context=4096)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"text number {n}"}) + "\n" for n in range(60)))
    data = ["data.source=custom", f"data.paths=[{path}]", "data.validation_share=0.3", "adapter.access=open"]
    written: list[dict[str, int]] = []
    for overwrite in ("false", "true"):
        recipe("sft_task").main(parse(None, [*data, *overrides(base, tmp_path), f"adapter.overwrite={overwrite}"]))
        written.append({one.name: one.stat().st_mtime_ns for one in (tmp_path / "run" / "prepared").iterdir()})
    rows = {name for name in written[0] if name.endswith(".rows.arrow")}
    # Besides: the facts of each, what was found in the data with the validation records, and the lock.
    assert written[0] == written[1] and len(rows) == 2 and len(written[0]) == 7


def opened(folder: Path, *more: str) -> tuple[Settings, Corpus]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"text number {n}"}) + "\n" for n in range(60)))
    settings = parse(None, ["data.source=custom", f"data.paths=[{path}]", *more])
    return settings, open_corpus(settings.data)


@pytest.mark.parametrize(
    "changed",
    [
        {"split_seed": 7},
        {"validation_share": 0.2},
        {"max_records": 30},
        {"leaks": "drop"},
        {"near_duplicate_similarity": 0.5},
        {"columns": {"text": "note"}},
        {"mix": [{"source": "pubmed", "paths": ["a.xml"]}]},
    ],
)
def test_another_setting_of_the_data_is_another_key(tmp_path: Path, changed: dict[str, Any]) -> None:
    settings, corpus = opened(tmp_path)
    other = settings.model_copy(
        update={"data": type(settings.data).model_validate(settings.data.model_dump() | changed)}
    )
    assert data_key(other, corpus) != data_key(settings, corpus)


def test_what_is_mixed_in_is_in_the_key_and_its_folder_is_not(tmp_path: Path) -> None:
    settings, corpus = opened(tmp_path)

    def key(**values: Any) -> str:
        mix = [{"source": "custom", "paths": ["a.jsonl"]} | values]
        data = type(settings.data).model_validate(settings.data.model_dump() | {"mix": mix})
        return data_key(settings.model_copy(update={"data": data}), corpus)

    assert key() == key(paths=["b.jsonl"])
    assert len({key(), key(weight=2.0), key(source="pubmed"), key(template="title"), key(max_records=9)}) == 5


def test_what_was_taken_out_and_the_order_of_files_are_in_the_key(tmp_path: Path) -> None:
    settings, corpus = opened(tmp_path)
    two = replace(corpus, hashes={"a.jsonl": "0", "b.jsonl": "1"})
    others = [
        corpus,
        two,
        replace(two, hashes={"b.jsonl": "1", "a.jsonl": "0"}),
        replace(two, hashes={"a.jsonl": "1", "b.jsonl": "0"}),
        replace(two, decontamination=[{**corpus.decontamination[0], "removed_uids": {"blocked": ["u1"]}}]),
        replace(two, templates={"custom": "title"}),
    ]
    assert len({data_key(settings, one) for one in others}) == len(others)


def test_the_code_that_reads_and_renders_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, corpus = opened(tmp_path)
    package = tmp_path / "package"
    files = [package / room / "a.py" for room in ("data/sources", "prompts", "cli", "training")]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_text("A = 1\n")
    monkeypatch.setattr(store, "__file__", str(package / "training" / "preparation" / "prepared_names.py"))
    keys = [data_key(settings, corpus)]
    for path in files:
        path.write_text("A = 2\n")
        keys.append(data_key(settings, corpus))
    assert len(set(keys[:3])) == 3 and keys[2] == keys[3] == keys[4]


def text_rows(base: Base, train: TrainSettings, **changes: Any) -> TextRows:
    fields = {"skip_bad": False, "allow_rows_dropped": 0.0, "stops": frozenset({2}), "begin": 1, "access": "open"}
    fields |= {"template": "text", "max_length": train.max_length, "too_long": train.too_long}
    return TextRows(tokenizer=base.tokenizer, assistant_turns="last", **(fields | changes))


@pytest.mark.parametrize(
    "changed",
    [
        {"tokenizer": "other"},
        {"template": "other"},
        {"max_length": 64},
        {"too_long": "drop"},
        {"packing": True},
        {"share_context": True},
        {"allow_rows_dropped": 0.5},
        {"what": "validation"},
        {"key": "other"},
    ],
)
def test_rows_are_named_by_all_that_makes_them(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A change of anything is another file; the same again is the file that is there."""
    base = make_base()
    records = [Passage(f"u{n}", f"g{n}", "custom", f"text number {n}") for n in range(5)]

    def files(tokenizer: str = "t", template: str = "c", what: str = "training", key: str = "k", **values: Any) -> int:
        settings = TrainSettings.model_validate(
            {"output_dir": str(tmp_path), "max_length": 128, "too_long": "error"} | values
        )
        here = replace(base, fingerprint=Fingerprint("w", tokenizer, template))
        kind = text_rows(here, settings, allow_rows_dropped=settings.allow_rows_dropped)
        Preparation(settings, key, tokenizer_marks(here), Preparer()).rows(records, kind, what)
        return len(list((tmp_path / "prepared").glob("*.rows.arrow")))

    assert [files(), files(), files(**changed), files(**changed), files()] == [1, 1, 2, 2, 2]
    assert files(learning_rate=1e-3) == 2


def test_a_tokenizer_that_now_adds_a_beginning_is_another(tmp_path: Path) -> None:
    """transformers reads from tokenizer_config.json alone whether a text begins with BOS."""
    base = replace(make_base(), folder=tmp_path)
    marks = []
    for adds in ("true", "false", "true"):
        (tmp_path / "tokenizer_config.json").write_text(f'{{"add_bos_token": {adds}}}')
        marks.append(tokenizer_marks(base))
    assert marks[0] == marks[2] != marks[1]


def test_a_long_answer_left_out_of_a_stream_is_said(caplog: pytest.LogCaptureFixture) -> None:
    records = [Pair(f"u{n}", f"g{n}", "custom", "a prompt", "word " * (40 if n % 2 else 1)) for n in range(12)]
    stream = DocumentStream(records, "pair_chat", make_tokenizer(), 128, None)
    with caplog.at_level("WARNING"):
        assert len(list(stream)) == 6
    assert [message.split(" longer")[0].split()[-1] for message in caplog.messages] == ["1", "2", "4"]
    assert "u1" in caplog.messages[0]
