"""What every test runs under: no network, no GPU, no telemetry, one thread. Set before anything else is imported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
    CUDA_VISIBLE_DEVICES="",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The fingerprint cache of tests stays out of the user's home, and one folder serves all runs.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"lora_med_test_cache_{os.getuid()}")
