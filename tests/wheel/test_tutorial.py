"""Every step of docs/tutorial.md, in order, from an empty folder, with the installed wheel."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lora_med.adapters.store.card import read_card
from tests.wheel.conftest import ROOT, away, run

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines()]
pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1800)]


def test_the_tutorial_does_what_it_says(command: Path, tmp_path: Path) -> None:
    scripts = 0
    for language, text in BLOCKS:
        if language == "yaml":
            assert text.removeprefix("data:\n") in (tmp_path / "drugs.yaml").read_text(encoding="utf-8")
        elif language == "python":
            scripts += 1
            done = subprocess.run(
                [command.with_name("python"), "-c", text], cwd=tmp_path, env=away(), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr[-3000:]
        else:
            for line in text.splitlines():
                words = shlex.split(line)
                assert words[0] == "lora-med"
                run(command, tmp_path, *words[1:])
    assert (scripts, len(COMMANDS)) == (2, 12)
    with (tmp_path / "drugs.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 361
    scores = read_card(tmp_path / "adapters" / "drugs").scores
    assert any("better" in str(value) for value in scores.values())
    assert (tmp_path / "runs" / "eval" / "report.html").is_file()
    assert (tmp_path / "merged" / "merge_certificate.json").is_file()
    assert (tmp_path / "adapters" / "drugs-python" / "card.json").is_file()
