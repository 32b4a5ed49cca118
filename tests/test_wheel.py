"""The wheel, installed without the clone, works from an empty folder; the sdist holds the files that README shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.wheel


def build(kind: str, folder: Path) -> Path:
    """The wheel or the sdist of a copy of what git tracks, so that nothing of a working tree gets in."""
    copy = folder / "source"
    if not copy.exists():
        copy.mkdir()
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for name in names:
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).write_bytes((ROOT / name).read_bytes())
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="module")
def command(built: Path) -> Path:
    """`lora-med` of an environment that has the wheel, and the other packages of this one without the clone."""
    wheel, environment = build("wheel", built), built / "environment"
    venv.create(environment, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    done = subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    own = next(environment.glob("lib/python*/site-packages"))
    (own / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth, the clone's, is not read
    return environment / "bin" / "lora-med"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


def run(command: Path, folder: Path, *arguments: str) -> str:
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run([str(command), *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stderr[-3000:]}"
    assert str(ROOT) not in done.stdout + done.stderr
    return done.stdout


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
