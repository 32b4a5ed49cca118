"""A merge killed at every step that the system can be asked to count: nothing there, or all of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lora_med.files import read_json, sha256_file
from lora_med.merge.merge import merge_adapter
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny

CALLS = ("preadv", "pread", "pwrite", "copy_file_range", "fsync", "replace", "open", "write", "mkdir", "chmod", "close")


def merge(folder: Path, out: Path) -> Any:
    return merge_adapter("one", out, base=str(folder / "base"), store=folder / "store", verify="tensors")


def killed_at(number: int, folder: Path, out: Path) -> bool:
    """Merge in a process of its own that is killed before its `number`-th call; False if it made fewer calls."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(call: Any) -> Any:
            def made(*given: Any, **more: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*given, **more)

            return made

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            merge(folder, out)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def torn(out: Path) -> list[str]:
    """The files of a merged folder that are missing or are not what the certificate says."""
    certificate = read_json(out / "merge_certificate.json")
    files = certificate["merged"]["files"]
    return [name for name, digest in files.items() if not (out / name).is_file() or sha256_file(out / name) != digest]


@pytest.mark.slow
def test_a_kill_at_any_call_leaves_nothing_or_a_complete_folder(tmp_path: Path) -> None:
    make_tiny("llama", tmp_path / "base", shard="60KB")
    publish_random(tmp_path / "base", "one", tmp_path / "store", use_dora=True)
    merge(tmp_path, tmp_path / "first")  # remembers the base's fingerprint, as a second merge finds it
    kills = whole = 0
    number = 1
    while killed_at(number, tmp_path, tmp_path / "out"):
        kills += 1
        if (tmp_path / "out").exists():
            assert torn(tmp_path / "out") == []
            whole += 1
            for path in (tmp_path / "out").iterdir():
                path.unlink()
            (tmp_path / "out").rmdir()
        number += 1
    assert kills >= 40, kills
    assert torn(tmp_path / "out") == []
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["base", "first", "out", "store"], "what killed merges left is swept by the next"
