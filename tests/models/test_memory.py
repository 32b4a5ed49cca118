"""Memory of large tensors goes back to the system where it is scarce."""

from __future__ import annotations

import platform

import pytest
import torch

from lora_med.models.memory import held_memory, large_tensors_returned

MIB = 1 << 20


def left_behind() -> int:
    """Bytes still held after a tensor of 20 MiB was freed, small objects lying behind it."""
    risen = torch.ones(30 * MIB // 4)  # glibc keeps what is smaller than the largest it has seen freed
    del risen
    before = held_memory("cpu")
    large = torch.ones(20 * MIB // 4)
    small = [bytearray(2000) for _ in range(500)]
    del large
    held = held_memory("cpu") - before
    del small
    return held


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to")
def test_large_tensors_are_returned_at_once() -> None:
    with large_tensors_returned():
        assert left_behind() < 5 * MIB
