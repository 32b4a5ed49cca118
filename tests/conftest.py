"""What every test runs under: no network, no telemetry, one thread, and no GPU but with LORA_MED_TEST_GPU=1.

Set before anything else is imported.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
)
if os.environ.get("LORA_MED_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The fingerprint cache of tests stays out of the user's home, and one folder serves all runs.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / f"lora_med_test_cache_{os.getuid()}")
# So does the audit trail, whose default place is there too; each test process has its own.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="lora_med_test_state_")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _a_cpu_without_bfloat16() -> Iterator[None]:
    """The automatic dtype is float32 on whatever machine the tests run; tests of bfloat16 ask for it."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def _what_is_loaded_is_not_looked_through_for_garbage() -> None:
    """Each run begins with a whole garbage collection by accelerate, 0.7 s of walking over libraries that stay."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line at the end: the tests and seconds of each part, summed over all processes."""
    seconds: dict[str, float] = {}
    tests: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                folder = Path(report.nodeid.partition("::")[0]).parent.name
                seconds[folder] = seconds.get(folder, 0.0) + report.duration
                tests[folder] = tests.get(folder, 0) + (report.when == "call")
    parts = [f"{folder} {tests[folder]} in {seconds[folder]:.0f} s" for folder in sorted(seconds)]
    terminalreporter.write_line("by part: " + ", ".join(parts))
