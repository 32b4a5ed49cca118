"""The secret of a private run: its numbers repeat, differ between steps, have their variance, and stay private."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lora_med.errors import IntegrityError
from lora_med.training.private.noise_key import FILE, NoiseKey

CPU = torch.device("cpu")


def test_the_numbers_of_a_step_repeat_and_those_of_others_differ(tmp_path: Path) -> None:
    key = NoiseKey.new()
    key.save(tmp_path)
    again = NoiseKey.read(tmp_path)
    first = key.generator("noise", 3).standard_normal(8)
    assert (again.generator("noise", 3).standard_normal(8) == first).all()
    for other in (key.generator("noise", 4), key.generator("patients", 3), NoiseKey.new().generator("noise", 3)):
        assert not (other.standard_normal(8) == first).any()


def test_the_secret_is_readable_by_its_owner_alone_and_shows_nowhere(tmp_path: Path) -> None:
    key = NoiseKey(bytes(range(32)))
    key.save(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert "0102" not in repr(key) and "\\x01" not in repr(key)


def test_a_file_that_was_cut_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"short")
    with pytest.raises(IntegrityError, match="has 5 bytes, not 32"):
        NoiseKey.read(tmp_path)


def test_noise_has_mean_0_and_variance_1_within_three_standard_deviations() -> None:
    count = 400_000
    noise = NoiseKey(b"n" * 32).generator("noise", 0).standard_normal(count, dtype=np.float32).astype(np.float64)
    assert abs(noise.mean()) < 3 / count**0.5
    assert abs(noise.var() - 1) < 3 * (2 / count) ** 0.5


def test_dropout_follows_from_the_secret_and_leaves_torch_as_it_was() -> None:
    key = NoiseKey.new()
    before = torch.get_rng_state()
    with key.torch_seeded(5, CPU):
        first = torch.rand(4)
    with key.torch_seeded(5, CPU):
        assert torch.equal(torch.rand(4), first)
    with key.torch_seeded(6, CPU):
        assert not torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), before)
