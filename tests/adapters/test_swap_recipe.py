"""recipes/swap_adapters.py: one base, each adapter's answer, and the base as it was."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from lora_med.errors import BaseMismatchError

RECIPE = runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "swap_adapters.py"))
OPTIONS: dict[str, Any] = {"prompt": "The", "max_new_tokens": 4}


def test_each_adapter_answers_and_the_base_is_restored(
    llama: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RECIPE["main"](["abstracts", "questions"], base=str(llama), store=str(shelf), **OPTIONS)
    out = capsys.readouterr().out
    assert [line.split(" (")[0] for line in out.splitlines() if line.startswith("==")] == [
        "== the bare base",
        "== abstracts",
        "== questions",
    ]
    assert out.endswith("the base is exactly what it was\n")


def test_another_base_is_refused(twin: Path, shelf: Path) -> None:
    with pytest.raises(BaseMismatchError):
        RECIPE["main"](["abstracts"], base=str(twin), store=str(shelf), **OPTIONS)
