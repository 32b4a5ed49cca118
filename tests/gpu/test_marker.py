"""Every test marked `gpu` is in a file that benchmarks/gpu.py runs."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_each_marked_file_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    marked = [file for file in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in file.read_text(encoding="utf-8")]
    marked.remove(Path(__file__))
    assert marked and all(str(file.relative_to(ROOT)).startswith(gpu.TESTS) for file in marked)
