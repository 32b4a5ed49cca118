"""What a merged base learned from holds for all that is made with it: access class, sources and licenses."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from lora_med.adapters.algebra.compose import compose
from lora_med.adapters.foreign.import_peft import Origin, adopt
from lora_med.adapters.store.base_data import BaseData, base_access, base_data, strictest_with_base, with_base_data
from lora_med.adapters.store.card import DataFacts
from lora_med.adapters.store.published import open_published
from lora_med.evaluation.sharing.eval_facts import is_open
from lora_med.export.export_folder import fresh_export, read_export
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import load_base
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny


@pytest.mark.parametrize(
    ("papers", "access"),
    [
        ({}, None),
        ({"merge_certificate.json": {"data": {"access": "open"}}}, "open"),
        ({"merge_certificate.json": {"data": {"access": "credentialed"}}}, "credentialed"),
        ({"export.json": {"data": {"access": "registered"}}}, "registered"),
        ({"export.json": {"data": {"access": "credentialed"}}, "merge_certificate.json": {"data": {}}}, "credentialed"),
        ({"merge_certificate.json": {}}, "credentialed"),
        ({"merge_certificate.json": []}, "credentialed"),
        ({"merge_certificate.json": {"data": {"access": "public"}}}, "credentialed"),
        ({"merge_certificate.json": {"data": {"access": ["open"]}}}, "credentialed"),
    ],
)
def test_a_merged_model_has_the_class_of_its_data(
    papers: dict[str, object], access: str | None, tmp_path: Path
) -> None:
    for name, content in papers.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "model.gguf").write_bytes(b"")
    for base in (tmp_path, tmp_path / "model.gguf"):
        assert base_access(str(base)) == access
    assert base_access("organization/name", tmp_path) == access  # its folder in the Hub's cache
    assert strictest_with_base(["open"], tmp_path) == (access or "open")
    assert strictest_with_base(["credentialed"], tmp_path) == "credentialed"


def test_a_base_without_papers_has_no_class() -> None:
    assert base_access("micro") is None and base_access("HuggingFaceTB/SmolLM2-135M") is None
    assert strictest_with_base(["registered"]) == "registered"


def test_sources_and_licenses_of_a_base_are_listed_once(tmp_path: Path) -> None:
    data = {"source": "mimic+pubmed", "earlier_sources": ["n2c2", 3], "license": "PhysioNet; MIT", "access": "open"}
    (tmp_path / "export.json").write_text(json.dumps({"data": data}))
    assert base_data(tmp_path) == BaseData("open", ("n2c2", "mimic", "pubmed"), ("PhysioNet; MIT",))
    joined = with_base_data(DataFacts("pubmed", "MIT", "registered", earlier_sources=["n2c2"]), tmp_path)
    assert joined == DataFacts("pubmed", "MIT; PhysioNet", "registered", earlier_sources=["n2c2", "mimic"])
    (tmp_path / "export.json").write_text(json.dumps({"data": {"earlier_sources": "x", "source": 4, "license": []}}))
    assert base_data(tmp_path) == BaseData("credentialed", ("4",), ())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`merged`: a base with an adapter of credentialed data in it. The adapter `later` on it learned from open data."""
    folder = tmp_path_factory.mktemp("twice")
    make_tiny("llama", folder / "base")
    publish_random(folder / "base", "notes", folder / "store", access="credentialed", source="mimic")
    merge_adapter("notes", folder / "merged", base=str(folder / "base"), store=folder / "store", verify="none")
    publish_random(folder / "merged", "later", folder / "store", source="pubmed", seed=2)
    return folder


def test_a_merge_onto_a_merged_base_has_the_strictest_class_of_both(home: Path, tmp_path: Path) -> None:
    options = {"base": str(home / "merged"), "store": home / "store", "verify": "none"}
    certificate = merge_adapter("later", tmp_path / "twice", **options).certificate
    assert certificate["data"]["access"] == "credentialed"
    assert (certificate["data"]["source"], certificate["data"]["earlier_sources"]) == ("pubmed", ["mimic"])
    assert "credentialed data" in (tmp_path / "twice/README.md").read_text()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "twice").iterdir())
    assert base_access(tmp_path / "twice") == "credentialed"


def test_an_export_with_a_merged_base_has_the_strictest_class_of_both(home: Path, tmp_path: Path) -> None:
    adapter = open_published("later", home / "store", str(home / "merged"))
    with fresh_export(tmp_path / "out", adapter, needed_bytes=0, facts={"command": ""}) as folder:
        (folder / "model.gguf").write_bytes(b"")
    facts = read_export(tmp_path / "out").facts
    assert (facts["data"]["access"], facts["data"]["earlier_sources"]) == ("credentialed", ["mimic"])
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_what_is_adopted_or_composed_on_a_merged_base_has_its_class(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = str(home / "merged")
    origin = Origin(access="open", source="pubmed", license="MIT")
    adopted = adopt(home / "store" / "later", base=base, name="adopted", store=tmp_path, origin=origin).card.data
    assert (adopted.access, adopted.earlier_sources) == ("credentialed", ["mimic"])
    assert "learned from credentialed data" in caplog.text
    composed = compose("weaker", [("later", 0.5)], base=base, store=home / "store").card.data
    assert (composed.access, composed.earlier_sources) == ("credentialed", ["mimic"])


def test_what_a_merged_base_writes_is_not_shown(home: Path) -> None:
    assert is_open([], [], None)
    assert is_open([], [], load_base(str(home / "base"), quantization="none"))
    assert not is_open([], [], load_base(str(home / "merged"), quantization="none"))
