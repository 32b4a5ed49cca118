"""docs/where-is-it.md names files and folders that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [line for line in (ROOT / "docs" / "where-is-it.md").read_text().splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS)
def test_the_file_is_there(row: str) -> None:
    paths = re.findall(r"`([\w/.]+)`", row.split("|")[2])
    assert paths
    for path in paths:
        assert (ROOT / "lora_med" / path).exists(), path
