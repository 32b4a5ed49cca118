"""Cached 4-bit weights are bit-identical to those that quantizing gives, and are used only while they are complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.models.base import load_base
from lora_med.models.files import quantized_cache
from tests.tiny import make_tiny


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(quantized_cache, "LEAST_WEIGHTS", 1)
    return make_tiny("llama", tmp_path / "base")


def folders(base: Path) -> list[Path]:
    return sorted((base.parent / "cache" / "lora_med" / "quantized").glob("*"))


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_cached_is_what_quantizing_gives(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = load_base(str(base), keep_quantized=False)
    assert not folders(base)
    first = load_base(str(base))
    (folder,) = folders(base)
    monkeypatch.setattr("lora_med.models.weight_loading.save_to_cache", lambda *_: pytest.fail("quantized again"))
    second = load_base(str(base))
    assert same(state(first.model), state(fresh.model))
    assert same(state(second.model), state(fresh.model))
    assert second.fingerprint == fresh.fingerprint
    assert second.model.config._name_or_path == str(base)
    assert not any(one.requires_grad for one in second.model.parameters())
    ids = torch.arange(3, 20)[None]
    assert torch.equal(second.model(input_ids=ids).logits, fresh.model(input_ids=ids).logits)
    assert (folder / quantized_cache.FACTS).is_file()


def test_other_settings_or_other_weights_have_their_own_entry(base: Path) -> None:
    load_base(str(base), dtype="float32")
    load_base(str(base), dtype="float32", quant_type="fp4")
    load_base(str(base), dtype="float32", double_quant=False)
    load_base(str(base), dtype="bfloat16")
    other = make_tiny("llama", base.parent / "other", seed=1)
    load_base(str(other), dtype="float32")
    assert len(folders(base)) == 5


def test_a_flipped_bit_a_torn_file_and_foreign_facts_are_made_again(base: Path) -> None:
    expected = state(load_base(str(base)).model)
    (folder,) = folders(base)
    weights = folder / "model.safetensors"

    def flip() -> None:
        content = bytearray(weights.read_bytes())
        content[-5] ^= 1
        weights.write_bytes(content)

    def tear() -> None:
        weights.write_bytes(weights.read_bytes()[:-100])

    def lie() -> None:
        facts = json.loads((folder / quantized_cache.FACTS).read_text())
        facts["facts"]["dtype"] = "float16"
        (folder / quantized_cache.FACTS).write_text(json.dumps(facts))

    def remove() -> None:
        (folder / quantized_cache.FACTS).unlink()

    def configure() -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))

    def lose() -> None:
        (folder / "config.json").unlink()

    for damage in (flip, tear, lie, remove, configure, lose):
        damage()
        assert same(state(load_base(str(base)).model), expected), damage.__name__
        assert same(state(load_base(str(base)).model), expected)


def test_small_bases_and_other_precisions_are_not_cached(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_base(str(base), quantization="none")
    load_base(str(base), quantization="8bit")
    monkeypatch.setattr(quantized_cache, "LEAST_WEIGHTS", 10**9)
    load_base(str(base))
    assert not folders(base)


def test_a_cache_that_cannot_be_written_costs_time_only(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = base.parent / "blocked"
    blocked.write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert load_base(str(base)).quantization == "4bit"


def test_another_configuration_has_its_own_entry(base: Path) -> None:
    """The weights are the same; what they are used for is not."""
    load_base(str(base))
    path = base / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [2, 3]}))
    assert load_base(str(base)).model.generation_config.eos_token_id == [2, 3]
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-3}))
    assert load_base(str(base)).model.config.rms_norm_eps == 1e-3
    assert len(folders(base)) == 3
