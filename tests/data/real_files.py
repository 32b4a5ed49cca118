"""The folder of the real sample files, and the mark of tests that need them: they skip on machines without."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL = Path(__file__).parents[2].parent / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real sample files are not on this machine")
