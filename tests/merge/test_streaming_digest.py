"""The digest of a file that grows while it is hashed is the digest of the file."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lora_med.merge.fold import streaming_digest as follow
from lora_med.merge.fold.streaming_digest import FileDigest


@pytest.mark.parametrize("seed", range(5))
def test_a_file_hashed_while_it_is_written_has_its_own_digest(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "STEP_BYTES", 1000)
    monkeypatch.setattr(follow, "BUFFER_BYTES", 300)
    draw = random.Random(seed)
    content = draw.randbytes(20_000)
    path, whole = tmp_path / "file", 0
    with ThreadPoolExecutor(1) as hashing, open(path, "wb", buffering=0) as handle:
        digest = FileDigest(path, hashing)
        while whole < len(content):
            whole += handle.write(content[whole : whole + draw.randrange(2_000)])
            digest.upto(whole)
        assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


def test_a_file_that_vanishes_is_an_error_and_no_digest(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as hashing:
        digest = FileDigest(tmp_path / "absent", hashing)
        digest.upto(10)
        with pytest.raises(FileNotFoundError):
            digest.hexdigest()
