"""Starts: each begins where it should, and what is published belongs to the original base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.attach import attach, attach_new, detach
from lora_med.adapters.tensors.initialize import check_start
from lora_med.adapters.tensors.weights import lora_layers
from lora_med.config.schema import LoraSettings
from lora_med.errors import SettingsError
from lora_med.models.base import Base, load_base
from tests.adapters.conftest import logits, put, train
from tests.tiny import make_tiny

ROWS = [[1, 50, 60, 70 + number, 80] for number in range(12)]


@pytest.mark.parametrize(
    "lora",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "pissa", "use_dora": True},
        {
            "init_lora_weights": "pissa",
            "use_rslora": True,
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {"k_proj": 7},
        },
    ],
    ids=["pissa", "olora", "pissa-dora", "pissa-rslora-patterns"],
)
def test_a_start_that_moves_the_base_is_published_for_the_original(
    base: Base, llama: Path, tmp_path: Path, lora: dict[str, Any]
) -> None:
    bare = logits(base.model)
    began = attach_new(load_base(str(llama), quantization="none"), LoraSettings(r=4, **lora), seed=1)
    assert torch.allclose(logits(began.eval()), bare, atol=1e-5)
    model = train(base, store=tmp_path, **lora)
    put(model, base, "trained", tmp_path)
    fresh = attach(load_base(str(llama), quantization="none"), "trained", tmp_path)
    assert (logits(model) - bare).abs().max() > 0.1
    assert torch.allclose(logits(fresh), logits(model), atol=1e-5)
    with fresh.disable_adapter():
        assert torch.equal(logits(fresh), bare)


def test_pissa_knows_gpt2s_transposed_layers(tmp_path: Path) -> None:
    folder = str(make_tiny("gpt2", tmp_path / "gpt2"))
    base = load_base(folder, quantization="none")
    model = train(base, store=tmp_path, init_lora_weights="pissa")
    put(model, base, "trained", tmp_path)
    fresh = attach(load_base(folder, quantization="none"), "trained", tmp_path)
    assert torch.allclose(logits(fresh), logits(model), atol=1e-5)


def test_a_moved_base_is_not_returned(base: Base, tmp_path: Path) -> None:
    model = train(base, store=tmp_path, init_lora_weights="pissa")
    with pytest.raises(SettingsError, match="moved"):
        detach(model)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_loftq_starts_nearer_to_the_original_than_4bit_alone(family: str, tmp_path: Path) -> None:
    folder = str(make_tiny(family, tmp_path / family))
    original = dict(load_base(folder, quantization="none").model.named_parameters())
    base = load_base(folder, quantization="4bit")
    model = attach_new(base, LoraSettings(r=16, init_lora_weights="loftq"), seed=1)
    import bitsandbytes.functional as bnb

    for name, layer in lora_layers(model).items():
        weight = layer.get_base_layer().weight
        true = original[f"{name}.weight"]
        true = true.T if family == "gpt2" else true
        kept = bnb.dequantize_4bit(weight.data, weight.quant_state)
        update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        assert (true - kept - update).norm() < 0.8 * (true - kept).norm(), name
    put(model, base, "loftq", tmp_path)
    again = attach(load_base(folder, quantization="4bit"), "loftq", tmp_path)
    assert torch.equal(logits(again), logits(model.eval()))


@pytest.mark.parametrize(
    ("quantization", "dtype"), [("none", "float32"), ("4bit", "float32"), ("none", "bfloat16"), ("4bit", "bfloat16")]
)
def test_eva_moves_ranks_between_layers_and_its_adapter_attaches(
    llama: Path, tmp_path: Path, quantization: str, dtype: str
) -> None:
    base = load_base(str(llama), quantization=quantization, dtype=dtype)
    model = train(base, store=tmp_path, init_lora_weights="eva", rows=ROWS)
    ranks = {layer.r["default"] for layer in lora_layers(model).values()}
    assert len(ranks) > 1
    put(model, base, "eva", tmp_path)
    fresh = attach(load_base(str(llama), quantization=quantization, dtype=dtype), "eva", tmp_path)
    assert torch.equal(logits(fresh), logits(model))


@pytest.mark.parametrize(
    ("quantization", "lora", "word"),
    [
        ("4bit", {"init_lora_weights": "pissa"}, "pissa with a 4bit base"),
        ("8bit", {"init_lora_weights": "olora"}, "olora with a 8bit base"),
        ("none", {"init_lora_weights": "loftq"}, "loftq with a base that is not 4-bit"),
        ("none", {"init_lora_weights": "eva"}, "eva"),
        ("8bit", {"use_dora": True}, "DoRA with an 8-bit base"),
    ],
)
def test_a_combination_that_cannot_be_is_refused_by_name(
    llama: Path, quantization: str, lora: dict[str, Any], word: str
) -> None:
    base = load_base(str(llama), quantization=quantization)
    with pytest.raises(SettingsError, match=word) as caught:
        attach_new(base, LoraSettings(**lora), seed=1)
    assert caught.value.fix
    assert not lora_layers(base.model)


def test_olora_on_gpt2_is_refused(tmp_path: Path) -> None:
    base = load_base(str(make_tiny("gpt2", tmp_path / "gpt2")), quantization="none")
    with pytest.raises(SettingsError, match="transposed"):
        attach_new(base, LoraSettings(init_lora_weights="olora"), seed=1)


def test_the_same_seed_gives_the_same_start_and_leaves_the_random_state(llama: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(5)
        model = attach_new(load_base(str(llama), quantization="none"), LoraSettings(r=4), seed=seed)
        assert torch.equal(torch.rand(1), expected)
        weights.append(next(iter(lora_layers(model).values())).lora_A["default"].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_start_needs_no_rows_but_eva(base: Base) -> None:
    from lora_med.adapters.tensors.method import method_for

    assert check_start(method_for(base.model, LoraSettings()), base, None) is None
    with pytest.raises(SettingsError, match="eva"):
        check_start(method_for(base.model, LoraSettings(init_lora_weights="eva")), base, None)
