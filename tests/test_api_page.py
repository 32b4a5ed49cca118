"""docs/api.md shows every public name, and its examples run in order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lora_med

ROOT = Path(__file__).parent.parent
CODE = "".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.parametrize("name", lora_med.__all__)
def test_the_page_has_an_example_of_each_public_name(name: str) -> None:
    assert re.search(rf"\blora_med\.{name}\b", CODE)


def test_the_page_names_nothing_that_is_not_public() -> None:
    assert set(re.findall(r"\blora_med\.(\w+)", CODE)) <= set(lora_med.__all__)


def test_about_thirty_names_are_public() -> None:
    assert len(lora_med.__all__) <= 36


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_examples_run_in_order(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
