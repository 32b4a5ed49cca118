"""Checkpoints of a model in shards (FSDP2, two CPU processes): what is in them, and that they are enough to resume."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.training.fsdp_ranks import run_sharded_ranks
from tests.training.support import make_trainer

ADAPTER = "adapter_model.safetensors"
FILES = {
    "COMMIT.json",
    ADAPTER,
    "adapter_config.json",
    "optimizer.bin",
    "scheduler.pt",
    "trainer_state.json",
    "rng_state_0.pth",
    "rng_state_1.pth",
}


def train(folder: Path) -> None:
    make_trainer(folder, max_steps=4, save_steps=2, eval_steps=2, save_total_limit=4).train()


def test_a_checkpoint_of_shards_has_no_copy_of_the_base_and_is_enough_to_resume(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert run_sharded_ranks(2, lambda: train(whole), tmp_path / "a") == [0, 0]
    for step in (2, 4):
        assert {path.name for path in (whole / f"checkpoint-{step}").iterdir()} == FILES
    shutil.copytree(whole / "checkpoint-2", resumed / "checkpoint-2")
    assert run_sharded_ranks(2, lambda: train(resumed), tmp_path / "b") == [0, 0]
    first, expected, found = (
        load_file(path / ADAPTER) for path in (whole / "checkpoint-2", whole / "checkpoint-4", resumed / "checkpoint-4")
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(not torch.equal(first[name], expected[name]) for name in expected)
