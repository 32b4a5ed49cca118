"""Access classes: nothing is open that nobody classed, and a statement loosens nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lora_med.config.data_settings import DataSettings
from lora_med.data.access import CLASSES, Access, access_of, ask, combined, handled_as, question, require_stated
from lora_med.data.catalog import SOURCES, find_source
from lora_med.data.corpus import open_corpus, open_heldout
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Passage
from lora_med.errors import SettingsError
from tests.data.examples import EXAMPLES

UNCLASSED = [name for name, source in SOURCES.items() if source.access is None]


@pytest.mark.parametrize(
    ("own", "stated", "met", "expected"),
    [
        (None, None, (), None),
        (None, None, ("open",), None),
        (None, None, ("registered",), None),
        (None, None, ("open", "credentialed"), "credentialed"),
        (None, "open", (), "open"),
        (None, "open", ("registered",), "registered"),
        (None, "registered", ("credentialed",), "credentialed"),
        ("open", None, (), "open"),
        ("open", "credentialed", (), "credentialed"),
        ("credentialed", "open", ("open",), "credentialed"),
    ],
)
def test_a_class_is_stated_or_unknown_and_a_statement_never_loosens_one(
    own: Access | None, stated: Access | None, met: tuple[str, ...], expected: Access | None
) -> None:
    assert access_of(own, stated, met) == expected


def test_one_unknown_class_makes_a_mixture_unknown_unless_another_is_the_strictest() -> None:
    assert combined(["open", None]) is None
    assert combined(["registered", "open"]) == "registered"
    assert combined([None, "credentialed"]) == "credentialed"
    assert handled_as(None) == "credentialed" and handled_as("registered") == "registered"


def test_the_question_gives_the_three_answers_and_the_flag_of_each(caplog: pytest.LogCaptureFixture) -> None:
    asked = question("custom", "--access ")
    assert "\n" not in asked and asked.count(". ") == 0, "one sentence"
    assert all(f"--access {name} (" in asked for name in CLASSES)
    with pytest.raises(SettingsError) as caught:
        require_stated(None, "custom")
    assert caught.value.exit_code == 2 and caught.value.where == "adapter.access"
    assert all(f"adapter.access={name}" in str(caught.value) for name in CLASSES)
    assert require_stated("open", "custom") == "open"
    with caplog.at_level(logging.WARNING):
        ask("custom", "--access ")
    assert caplog.messages == [f"{asked}; until then its rows are handled as credentialed"]


def test_the_format_of_your_own_rows_has_no_class() -> None:
    assert {"custom", "conll", "bioc", "brat"} <= set(UNCLASSED), "formats, not data sets"
    assert find_source("mimic3").access == "credentialed" and find_source("pubmed").access == "open"


@pytest.mark.parametrize("source", UNCLASSED)
def test_what_nobody_classed_is_unknown_until_it_is_stated(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = EXAMPLES[source].write(tmp_path)
    whole = DataSettings(source=source, paths=[str(path)], validation_share=0, test_share=0, skip_bad=True)
    assert open_corpus(whole).access is None
    for access in CLASSES:
        assert open_corpus(whole, access=access).access == access  # pyright: ignore[reportArgumentType]
    with caplog.at_level(logging.WARNING):
        held = open_heldout(whole, "test", hold_out_all=True)
    assert held.access == "credentialed"
    assert sum(f"{source!r} has no access class until you state one" in line for line in caplog.messages) == 1
    caplog.clear()
    assert open_heldout(whole, "test", hold_out_all=True, access="registered").access == "registered"
    assert not any("has no access class" in line for line in caplog.messages)


def rows(path: Path, *sources: str) -> str:
    lines = [{"kind": "passage", "source": name, "text": f"Text {n} of it."} for n, name in enumerate(sources)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_rows_that_name_a_source_raise_the_class_and_state_none(tmp_path: Path) -> None:
    def access(stated: Access | None, *sources: str) -> Access | None:
        paths = [rows(tmp_path / "rows.jsonl", *sources)]
        return open_corpus(DataSettings(source="custom", paths=paths, test_share=0), access=stated).access

    assert access(None, "pubmed", "custom") is None
    assert access("open", "pubmed", "pubmed") == "open"
    assert access("open", "pubmed", "mimic3") == access(None, "pubmed", "mimic3") == "credentialed"


def test_a_mixture_with_rows_of_no_class_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        "<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID Version='1'>1</PMID><Article><Abstract>"
        "<AbstractText>Why.</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"
    )
    mixed: Any = [{"source": "custom", "paths": [rows(tmp_path / "rows.jsonl", "custom", "custom")]}]
    data = DataSettings(source="pubmed", paths=[str(path)], mix=mixed, validation_share=0, test_share=0)
    assert open_corpus(data).access is None
    assert open_corpus(data, access="open").access == "open"


def test_records_to_score_must_have_a_class() -> None:
    passage = Passage("u", "g", "custom", "Text.")
    assert HeldOutRecords((passage,), "open", "custom").access == "open"
    unknown: Any = None
    with pytest.raises(SettingsError):
        HeldOutRecords((passage,), unknown, "custom")
