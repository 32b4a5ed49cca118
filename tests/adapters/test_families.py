"""Every family, at every precision: train, publish, attach to a fresh base, and the logits are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from lora_med.adapters.runtime.attach import attach
from lora_med.models.base import load_base
from tests.adapters.conftest import logits, put, train
from tests.tiny import FAMILIES, make_model, make_tiny


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        make_tiny(family, folder / family)
    return folder


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_adapter_gives_the_trained_logits(
    family: str, quantization: str, bases: Path, tmp_path: Path
) -> None:
    base = load_base(str(bases / family), quantization=quantization)
    bare = logits(base.model)
    model = train(base, store=tmp_path)
    assert not torch.equal(logits(model), bare)
    put(model, base, "trained", tmp_path)
    fresh = load_base(str(bases / family), quantization=quantization)
    assert torch.equal(logits(attach(fresh, "trained", tmp_path)), logits(model))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_itself_reads_what_we_publish(family: str, bases: Path, tmp_path: Path) -> None:
    base = load_base(str(bases / family), quantization="none")
    model = train(base, store=tmp_path, use_dora=family == "llama", use_rslora=True, rank_pattern={".*_proj": 2})
    folder = put(model, base, "trained", tmp_path)
    theirs = PeftModel.from_pretrained(make_model(family), str(folder))
    assert torch.allclose(logits(theirs), logits(model), atol=1e-6)


def test_gpt2_trained_in_4bit_fits_the_transposed_original(bases: Path, tmp_path: Path) -> None:
    base = load_base(str(bases / "gpt2"), quantization="4bit")
    model = train(base, store=tmp_path, steps=5)
    moved = logits(model) - logits(load_base(str(bases / "gpt2"), quantization="4bit").model)
    put(model, base, "trained", tmp_path)
    original = load_base(str(bases / "gpt2"), quantization="none")
    bare = logits(original.model)
    on_original = logits(attach(original, "trained", tmp_path)) - bare
    assert torch.nn.functional.cosine_similarity(moved.flatten(), on_original.flatten(), 0) > 0.95


def test_the_weights_stay_float32_on_a_bfloat16_base(bases: Path, tmp_path: Path) -> None:
    base = load_base(str(bases / "llama"), quantization="none", dtype="bfloat16")
    model = train(base, store=tmp_path)
    put(model, base, "trained", tmp_path)
    fresh = attach(load_base(str(bases / "llama"), quantization="none", dtype="bfloat16"), "trained", tmp_path)
    ours = {name: one for name, one in model.named_parameters() if "lora_" in name}
    theirs = {name.replace(".trained.", ".default."): one for name, one in fresh.named_parameters() if "lora_" in name}
    assert all(torch.equal(ours[name], theirs[name]) and theirs[name].dtype == torch.float32 for name in ours)
