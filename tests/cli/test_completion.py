"""The shell completes commands, subcommands and options once its script is sourced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
source script.bash
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_lora_med_completion lora-med
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `lora-med` to call, its completion script, and an adapter's card."""
    folder = tmp_path_factory.mktemp("shell")
    program = folder / "lora-med"
    program.write_text(f"#!{sys.executable}\nfrom lora_med.cli.main import main\nmain()\n")
    program.chmod(0o755)
    script = bash(folder, "lora-med", _LORA_MED_COMPLETE="source_bash")
    (folder / "script.bash").write_text(script)
    (folder / "adapters/heart-qa").mkdir(parents=True)
    (folder / "adapters/heart-qa/card.json").write_text("{}")
    return folder


def bash(folder: Path, command: str, **environment: str) -> str:
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
    values = {**os.environ, **paths, **environment}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=values, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("lora-med ''", {"doctor", "train", "eval", "export"}),
        ("lora-med ad", {"adapters"}),
        ("lora-med eval c", {"compare"}),
        ("lora-med adapters ver", {"verify"}),
        ("lora-med merge --on", {"--onto", "--online"}),
        ("lora-med eval --ad", {"--adapter"}),
        ("lora-med merge x --onto d", {"dequantized"}),
        ("lora-med generate --adapter he", {"heart-qa"}),
        ("lora-med adapters show h", {"heart-qa"}),
    ],
)
def test_bash_completes(home: Path, words: str, completed: set[str]) -> None:
    answers = set(bash(home, ASK.format(words=words)).split())
    assert completed <= answers
    assert "doctor" not in answers or words == "lora-med ''"
