"""A checkpoint counts once it is whole; what is not is moved aside, and what is not ours stays."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.errors import DiskError, IntegrityError
from lora_med.training.run.checkpoints import (
    COMMIT,
    announce,
    commit,
    differences,
    newest,
    newest_name,
    read_commit,
    require_complete,
    rotate,
    written,
)

IDENTITY = {"lora.r": 16}


def write(output_dir: Path, step: int, *, whole: bool = True, best: int | None = None) -> Path:
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "trainer_state.json", "training_args.bin"):
        (folder / name).write_text(f"{name} of {step}")
    if whole:
        named = output_dir / f"checkpoint-{best}" if best else None
        commit(folder, step=step, identity=IDENTITY, finished=False, best=named)
    return folder


def test_what_was_committed_is_read_back(tmp_path: Path) -> None:
    folder = write(tmp_path, 5, best=3)
    found = read_commit(folder)
    assert found is not None
    assert (found.step, found.identity, found.finished) == (5, IDENTITY, False)
    assert found.best == tmp_path / "checkpoint-3"


def test_the_pickled_arguments_are_never_saved(tmp_path: Path) -> None:
    assert not (write(tmp_path, 5) / "training_args.bin").exists()


def test_a_flipped_byte_a_cut_file_or_a_missing_one_makes_it_torn(tmp_path: Path) -> None:
    for step, spoil in enumerate(
        (
            lambda path: path.write_text("adapter_model.safetensorS of 0"),
            lambda path: path.write_text("adapter"),
            lambda path: path.unlink(),
        )
    ):
        folder = write(tmp_path, step)
        spoil(folder / "adapter_model.safetensors")
        assert read_commit(folder) is None


def test_the_newest_that_verifies_is_found_and_torn_ones_are_moved_aside(tmp_path: Path) -> None:
    write(tmp_path, 9)
    write(tmp_path, 10)
    write(tmp_path, 12, whole=False)
    (write(tmp_path, 11) / "trainer_state.json").write_text("cut")
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 10
    assert sorted(path.name for path in (tmp_path / "torn").iterdir()) == ["checkpoint-11", "checkpoint-12"]
    write(tmp_path, 12, whole=False)
    newest(tmp_path)
    assert (tmp_path / "torn" / "checkpoint-12.2").is_dir()


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") is None
    assert newest(tmp_path) is None
    assert newest_name(tmp_path) is None


def test_rotation_keeps_the_newest_the_best_and_all_that_is_not_ours(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 10):
        write(tmp_path, step)
    mine = tmp_path / "checkpoint-7"
    mine.mkdir()
    (mine / "notes.txt").write_text("a user's own")
    (tmp_path / "checkpoint-best").mkdir()
    rotate(tmp_path, keep=2, best=tmp_path / "checkpoint-2")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint-10", "checkpoint-2", "checkpoint-4", "checkpoint-7", "checkpoint-best"]
    assert (mine / "notes.txt").exists()
    assert (tmp_path / "checkpoint-2" / COMMIT).exists()
    assert newest_name(tmp_path) == "checkpoint-10"


def test_differences_name_each_field_with_both_values() -> None:
    lines = differences({"lora.r": 16, "train.seed": 1, "gone": True}, {"lora.r": 8, "train.seed": 1, "new": [1]})
    assert lines == ["lora.r: 16 then, 8 now", "new: not set then, [1] now", "gone: True then, not set now"]


def test_rotation_keeps_what_was_the_best_at_a_checkpoint_that_stays(tmp_path: Path) -> None:
    """Where the newest is lost, the run goes on from the one before, whose best must be there."""
    write(tmp_path, 10, best=10)
    write(tmp_path, 20, best=10)
    write(tmp_path, 30, best=30)
    rotate(tmp_path, keep=2, best=tmp_path / "checkpoint-30")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-20", "checkpoint-30"]
    write(tmp_path, 40, best=30)
    rotate(tmp_path, keep=2, best=tmp_path / "checkpoint-30")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-30", "checkpoint-40"]


def test_a_best_checkpoint_that_is_damaged_or_gone_is_no_result(tmp_path: Path) -> None:
    folder = write(tmp_path, 5)
    assert require_complete(folder) == folder
    (folder / "adapter_model.safetensors").write_text("adapter_model.safetensorS of 5")
    for damaged in (folder, tmp_path / "checkpoint-4"):
        with pytest.raises(IntegrityError, match=f"{damaged.name}, the best"):
            require_complete(damaged)


def test_a_full_disk_is_reported_however_the_library_reports_it(tmp_path: Path) -> None:
    torchs = RuntimeError("[enforce fail at inline_container.cc:626] . PytorchStreamWriter failed writing file data/3")
    for error in (torchs, OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises(DiskError) as told, written(tmp_path):
            raise error
        assert told.value.where == str(tmp_path)
    with pytest.raises(RuntimeError, match="shapes"), written(tmp_path):
        raise RuntimeError("shapes do not match")


def test_another_version_of_a_library_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = read_commit(write(tmp_path, 5))
    assert found is not None and found.versions["torch"]
    with caplog.at_level(logging.INFO):
        announce(found)
        assert caplog.messages == ["continuing from step 5"]
        announce(replace(found, versions={**found.versions, "torch": "1.0"}))
    assert "torch: 1.0 then" in caplog.messages[-1]
