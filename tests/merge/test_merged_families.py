"""A base of several modalities is merged in its language layers; all else is copied byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_med.files import read_json
from lora_med.merge.merge import merge_adapter
from tests.evaluation.published import publish_random
from tests.tiny_families import CLASSES, make_family


@pytest.mark.parametrize("family", ["gemma3", "mllama"])
def test_the_vision_weights_are_copied_and_the_class_is_the_same(family: str, tmp_path: Path) -> None:
    base = make_family(family, tmp_path / "base")
    publish_random(base, "plain", tmp_path / "store")
    merge = merge_adapter("plain", tmp_path / "out", base=str(base), store=tmp_path / "store")
    assert merge.certificate["probe"]["mean_kl"] < 1e-6 < merge.certificate["probe"]["adapter_effect_kl"]
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("vision" in name or "projector" in name for name in changed)
    assert read_json(tmp_path / "out" / "config.json")["architectures"] == [CLASSES[family]]


@pytest.mark.parametrize("family", ["gptj", "gemma2", "bloom", "mamba", "falcon", "gpt_oss"])
def test_a_base_without_sdpa_is_merged_with_proof(family: str, tmp_path: Path) -> None:
    base = make_family(family, tmp_path / "base")
    publish_random(base, "plain", tmp_path / "store")
    merge = merge_adapter("plain", tmp_path / "out", base=str(base), store=tmp_path / "store")
    assert merge.certificate["probe"]["mean_kl"] < 1e-6 < merge.certificate["probe"]["adapter_effect_kl"]
