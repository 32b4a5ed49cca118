"""The bill of materials is valid CycloneDX, and holds the files, the base and the packages with their dependencies."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.errors import InputMissingError, IntegrityError
from lora_med.export.bill_of_materials import bill_of_materials
from lora_med.files import sha256_file

pytest.importorskip("cyclonedx", reason="the extra sign is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    versions = {name: importlib.metadata.version(name) for name in ("peft", "transformers", "lora-med")}
    base = {"name": "micro", "revision": None, "fingerprint": {"weights": "ab" * 32}}
    card = {"name": "abstracts", "base": base, "versions": {**versions, "python": "3.11.7", "trl": "0.0.1"}}
    folder = tmp_path / "abstracts"
    folder.mkdir()
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    (folder / "weights.bin").write_bytes(b"weights")
    return folder


def components(content: str) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(content)["components"]}


def test_the_bill_is_valid_by_the_schema_of_cyclonedx(folder: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill_of_materials(folder)) is None


def test_the_model_has_the_hash_of_each_file_and_its_base(folder: Path) -> None:
    content = bill_of_materials(folder)
    model = json.loads(content)["metadata"]["component"]
    hashes = {one["name"]: one["hashes"][0]["content"] for one in model["components"]}
    assert hashes == {name: sha256_file(folder / name) for name in ("card.json", "weights.bin")}
    assert components(content)["micro"]["type"] == "machine-learning-model"


def test_the_packages_are_those_recorded_and_what_they_need(folder: Path) -> None:
    content = bill_of_materials(folder)
    packages = components(content)
    assert packages["peft"]["purl"] == f"pkg:pypi/peft@{importlib.metadata.version('peft')}"
    assert packages["tokenizers"]["version"] == importlib.metadata.version("tokenizers")  # transformers needs it
    assert packages["trl"]["version"] == "0.0.1"  # as recorded, though another version is installed here
    assert "licenses" not in packages["trl"]
    assert "pytest" not in packages  # only an extra needs it
    needs = {one["ref"]: one.get("dependsOn", []) for one in json.loads(content)["dependencies"]}
    assert packages["tokenizers"]["bom-ref"] in needs[packages["transformers"]["bom-ref"]]
    assert set(needs["model"]) >= {packages[name]["bom-ref"] for name in ("peft", "trl", "python", "micro")}


def test_a_folder_without_versions_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "card.json").write_text("{}", encoding="utf-8")
    with pytest.raises(IntegrityError, match="no versions"):
        bill_of_materials(folder)
    with pytest.raises(InputMissingError, match="none of"):
        bill_of_materials(tmp_path)
