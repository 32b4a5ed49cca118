"""What the README tells a reader to type exists, and the page stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lora_med.cli.main import COMMANDS
from lora_med.config.parse import parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_it_is_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("command", sorted(set(re.findall(r"lora-med ([a-z]+)", README))))
def test_the_command_exists(command: str) -> None:
    assert command in COMMANDS


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)", README))))
def test_the_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


TRAININGS = [line for line in README.splitlines() if line.startswith(("accelerate launch", "lora-med train"))]


@pytest.mark.parametrize("line", TRAININGS)
def test_the_training_command_parses(line: str) -> None:
    words = line.split()
    scripts = [word for word in words if word.endswith(".py")]
    assert all((ROOT / script).is_file() for script in scripts)
    config = words[words.index("--config") + 1]
    parse(config, [word for word in words if "=" in word and not word.startswith("-")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_tests_that_tests_readme_names_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", (ROOT / "tests" / "README.md").read_text())
    assert len(named) > 50
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()]
    assert not missing
