"""Every `lora-med` command that the documentation, a message or a help text shows exists, with each of its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from lora_med.cli.command_groups import with_common_options
from lora_med.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("recipes/**/README.md")))
MODULES = (*sorted(ROOT.glob("lora_med/**/*.py")), *sorted(ROOT.glob("recipes/**/*.py")))
COMMAND = re.compile(r"lora-med((?: +[^\s`\"'|;&#<>()\\]+)+)")
OPTION = re.compile(r"--[a-z][a-z0-9-]*")
WHERE = re.compile(r"(?:where|fix)=f?\"([^\"]*)\"")


def written(path: Path) -> Iterator[list[str]]:
    """The words after `lora-med` wherever a page or a module writes a command of several words."""
    for match in COMMAND.finditer(path.read_text(encoding="utf-8")):
        yield match[1].split()


def options_of(command: Any) -> set[str]:
    """All options of a command, `--help` among them."""
    return {"--help", *(option for item in command.params for option in (*item.opts, *item.secondary_opts))}


def problem(words: list[str], root: Any) -> str | None:
    """What is wrong with a command: an option that it does not have. None for prose, as in "lora-med reads"."""
    command, rest = root, list(words)
    while hasattr(command, "get_command") and rest:
        names = rest[0].rstrip(".,:").split("|")
        known = [inner for name in names if (inner := command.get_command(None, name)) is not None]
        if not known:
            break
        command = known[0]
        rest.pop(0)
    if command is root:
        return None
    written_options = [OPTION.match(word) for word in rest]
    missing = {match[0] for match in written_options if match is not None} - options_of(command)
    return f"lora-med {' '.join(words)}: no option {', '.join(sorted(missing))}" if missing else None


def all_commands(command: Any) -> Iterator[Any]:
    """A group and every command in it."""
    yield command
    for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from all_commands(command.get_command(None, name))


@pytest.fixture(scope="module")
def root() -> Any:
    return with_common_options(get_command(app))


@pytest.mark.parametrize("paths", [PAGES, MODULES], ids=["pages", "modules"])
def test_each_written_command_has_its_options(paths: tuple[Path, ...], root: Any) -> None:
    problems = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in paths
        for words in written(path)
        if (text := problem(words, root)) is not None
    ]
    assert problems == []


def test_each_error_names_an_option_that_exists(root: Any) -> None:
    known = {option for command in all_commands(root) for option in options_of(command)}
    named = {
        (option, str(path.relative_to(ROOT)))
        for path in MODULES
        for text in WHERE.findall(path.read_text(encoding="utf-8"))
        if "pip install" not in text
        for option in OPTION.findall(text)
    }
    assert named
    assert {(option, path) for option, path in named if option not in known} == set()


def test_an_option_that_does_not_exist_is_noticed(root: Any) -> None:
    assert problem(["export", "gguf", "NAME", "--out", "DIR", "--type", "q8_0"], root) is not None
    assert problem(["export", "gguf", "NAME", "--out", "DIR", "--dtype", "q8_0"], root) is None
