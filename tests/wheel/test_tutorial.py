"""Every step of docs/tutorial.md, in order, from an empty folder, with the installed wheel."""

from __future__ import annotations

import csv
import re
import shlex
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from lora_med.adapters.store.card import read_card
from tests.wheel.conftest import ROOT, away, run

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines()]
pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1800)]


def read_pages(command: Path, folder: Path, words: list[str]) -> None:
    """Start the command that serves pages, read what the tutorial says of them, and end it as Ctrl-C does."""
    server = subprocess.Popen(
        [str(command), *words[1:], "--port", "0"], cwd=folder, env=away(), stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        address = re.search(r"serving on (http://127\.0\.0\.1:\d+)", server.stdout.readline())
        assert address is not None
        page = httpx.get(f"{address[1]}/reports/0/0/0", timeout=60).text
        assert ">drugs-r2" in page and 'id="prompt"' in page
        form = {"prompt": "What kind of drug is Ramipril?", "subject": ["0", "1", "2"], "most_tokens": "4"}
        answers = httpx.post(f"{address[1]}/playground", data=form, timeout=120).text
        assert answers.count("adapter weights SHA-256") == 2
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
        server.stdout.close()


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
        elif language == "sh":
            read_pages(command, tmp_path, shlex.split(text))
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
