"""Where the real sample files are on machines that have them; tests that use them skip elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL = Path(__file__).parents[2].parent / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real sample files are not on this machine")
