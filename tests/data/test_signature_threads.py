"""Signatures of texts start no thread: a process that had made them could not be forked without hanging."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from lora_med.data.splitting import near_duplicates
from lora_med.data.splitting.near_duplicates import signatures

TASKS = Path("/proc/self/task")
LONG = " ".join(f"word{number}" for number in range(150_000))  # twice what rensa digests without threads


def native_threads() -> int:
    return len(list(TASKS.iterdir())) - threading.active_count()


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads are counted in /proc")
@pytest.mark.parametrize("texts", [[f"text number {number}" for number in range(2000)], [LONG, "a short one"]])
def test_signatures_start_no_thread(texts: list[str]) -> None:
    before = native_threads()
    assert signatures(texts).shape == (len(texts), 128)
    assert native_threads() == before


def test_a_text_digested_in_pieces_has_the_signature_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(f"word{number % 700}" for number in range(900)), "aspirin for pain", ""]
    whole = signatures(texts)
    monkeypatch.setattr(near_duplicates, "HASHES", 64)
    assert np.array_equal(signatures(texts), whole)
