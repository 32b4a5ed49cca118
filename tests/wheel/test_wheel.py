"""The wheel works from an empty folder, away from the clone; the sdist holds the files that README shows."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.wheel.conftest import ROOT, build, run

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


def test_the_wheel_holds_no_recipe_test_or_tool(built: Path, command: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lora_med"}
    assert "lora_med/assets/configs/micro_pubmed.yaml" in names
    assert "lora_med/assets/micro/model.safetensors" in names


def test_the_installed_command_trains_scores_merges_and_writes(command: Path, folder: Path) -> None:
    """Doctor, train, eval, merge, generate: and each hint that is printed names a command that works here."""
    assert json.loads(run(command, folder, "doctor", "--json"))
    assert "micro_title" in run(command, folder, "config", "list")
    steps = ["train.max_steps=3", "train.eval_steps=3", "data.max_records=60", "adapter.name=first"]
    trained = run(command, folder, "train", "--config", "micro_title", *steps)
    assert (folder / "adapters" / "first" / "card.json").is_file()
    hint = re.search(r"Next: lora-med (eval .*)", trained)
    assert hint, trained
    run(command, folder, *hint[1].split(), "--max-items", "8", "--bootstrap-samples", "50")
    assert list(folder.rglob("report.html"))
    merged = run(command, folder, "merge", "first", "--out", "merged")
    assert (folder / "merged" / "model.safetensors").is_file()
    assert run(command, folder, "generate", "--adapter", "first", "--prompt", "Aspirin", "--max-new-tokens", "4")
    hint = re.search(r"Next: lora-med (generate --base \S+)", merged)
    assert hint, merged
    run(command, folder, *hint[1].split(), "--prompt", "Aspirin", "--max-new-tokens", "4")


def test_the_sdist_builds_and_holds_what_its_readme_shows(built: Path) -> None:
    with tarfile.open(build("sdist", built)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {link.partition("#")[0] for link in re.findall(r"\]\(([^):]+)\)", readme)}
    assert shown, "the README links files"
    missing = [link for link in shown if link not in names and not any(name.startswith(f"{link}/") for name in names)]
    assert not missing
    assert "recipes/sft_pubmed.py" in names
