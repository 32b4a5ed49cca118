"""Machines with one disk or with disks of their own end in the adapter of one process, also after a kill."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from tests.processes.machines import Machines, start
from tests.tiny import make_tiny

DROPOUT = "lora.lora_dropout=0.1"  # random numbers that each process has to find again
LONG = "train.max_steps=9"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


def killed_and_started_again(base: Path, folder: Path, killed: int, *, shared_disk: bool = False) -> Machines:
    machines = start(base, folder, DROPOUT, LONG, shared_disk=shared_disk)
    machines.until(lambda: "step 5 of" in machines[0].said)
    machines.signal(killed, signal.SIGKILL)
    assert set(machines.wait()) == {-9, 75}
    machines = start(base, folder, DROPOUT, LONG, shared_disk=shared_disk)
    assert machines.wait() == [0, 0], machines[0].said + machines[1].said
    assert "continuing from step 3" in machines[0].said
    return machines


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_the_same_commands_after_a_kill_end_bit_identical(base: Path, tmp_path: Path, killed: int) -> None:
    again = killed_and_started_again(base, tmp_path / "killed", killed)
    whole = start(base, tmp_path / "whole", DROPOUT, LONG)
    assert whole.wait() == [0, 0]
    assert again[0].adapter() == whole[0].adapter()
    for machines in (again, whole):
        assert len(machines[0].checkpoints()) == 2
        assert machines[1].checkpoints() == []
        assert not (machines[1].run / "received").exists()
        assert not (machines[1].folder / "adapters").exists()


@pytest.mark.slow
def test_one_shared_disk_needs_nothing_sent_and_keeps_one_checkpoint(base: Path, tmp_path: Path) -> None:
    again = killed_and_started_again(base, tmp_path / "killed", 1, shared_disk=True)
    own = start(base, tmp_path / "own", DROPOUT, LONG)
    assert own.wait() == [0, 0]
    assert again[0].adapter() == own[0].adapter()
    one = start(base, tmp_path / "one", LONG, "train.save_total_limit=1", shared_disk=True)
    assert one.wait() == [0, 0], one[0].said
    assert one[0].checkpoints() == ["checkpoint-9"]


@pytest.mark.parametrize("shared_disk", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_machines_end_in_the_adapter_of_one_process(base: Path, tmp_path: Path, shared_disk: bool) -> None:
    machines = start(base, tmp_path, "lora.lora_dropout=0", shared_disk=shared_disk)
    assert machines.wait() == [0, 0]
    alone = start(base, tmp_path / "alone", "lora.lora_dropout=0", "train.per_device_train_batch_size=2", own=[[]])
    assert alone.wait() == [0]
    found, expected = load(machines[0].adapter()), load(alone[0].adapter())
    assert found.keys() == expected.keys()
    assert max(float((found[name] - value).abs().max()) for name, value in expected.items()) < 5e-6
    assert all(value.dtype == torch.float32 for value in found.values())


@pytest.mark.slow
def test_the_best_adapter_that_is_not_the_last_is_sent(base: Path, tmp_path: Path) -> None:
    """At this rate the loss rises again; the base at step 0 stays worse than the best."""
    high = ["train.learning_rate=0.5", "train.max_steps=6", "train.eval_steps=1", "train.save_steps=1"]
    machines = start(base, tmp_path, *high)
    assert machines.wait() == [0, 0], machines[1].said
    assert "the best adapter is that of step" in machines[0].said
    again = start(base, tmp_path, *high)  # the run has ended: its result is published again
    first = machines[0].adapter()
    assert again.wait() == [0, 0], again[1].said
    assert "the run had ended at step 6" in again[0].said
    assert again[0].adapter() == first
