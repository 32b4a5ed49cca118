"""Memory of large tensors goes back to the system where it is scarce."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lora_med.models.memory import OWN_TUNING, returns_large_tensors

LEFT_BEHIND = """
import contextlib, sys, torch
from lora_med.models.memory import held_memory, large_tensors_returned
with large_tensors_returned() if sys.argv[1] == "within" else contextlib.nullcontext():
    risen = torch.ones(7_500_000)  # glibc keeps what is smaller than the largest it has seen freed
    del risen
    before = held_memory("cpu")
    large = torch.ones(5_000_000)
    small = [bytearray(2000) for _ in range(500)]  # behind it, so that it is not at the heap's end
    del large
    print((held_memory("cpu") - before) / 1e6)
"""


def left_behind(how: str) -> float:
    """Megabytes still held after a tensor of 20 was freed, in a process of its own."""
    run = [sys.executable, "-W", "ignore", "-c", LEFT_BEHIND, how]
    told = subprocess.run(run, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return float(told.stdout)


@pytest.mark.skipif(
    not returns_large_tensors(), reason="only glibc is told to, and only where the user has not tuned it"
)
def test_large_tensors_are_returned_at_once() -> None:
    assert left_behind("within") < 5
    assert left_behind("without") > 15


@pytest.mark.parametrize("name", OWN_TUNING)
def test_what_the_user_has_tuned_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not returns_large_tensors()
