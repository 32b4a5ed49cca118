"""Rows of zeros under DoRA, and models that give NaN: exact at step 0, finite after training, or an error by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_med.adapters.runtime.attach import attach, attach_new, detach
from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import use
from lora_med.adapters.tensors.weight_update import row_factor
from lora_med.config.schema import LoraSettings
from lora_med.errors import DivergedError
from lora_med.evaluation.likelihood.log_probabilities import score_options
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import load_base
from lora_med.models.generation import greedy
from tests.adapters.conftest import logits, put, train
from tests.tiny import make_tiny

ZERO_ROWS = (0, 5, 63)
O_PROJ, DOWN = "model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj"
DORA: dict[str, Any] = {"use_dora": True, "target_modules": ["o_proj", "down_proj"]}


def edit(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def zeroed(tmp_path: Path) -> Path:
    """A base of which some rows are zeros, in two layers."""
    make_tiny("llama", tmp_path / "zeroed")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for layer in (O_PROJ, DOWN):
            tensors[f"{layer}.weight"][list(ZERO_ROWS)] = 0.0

    edit(tmp_path / "zeroed", change)
    return tmp_path / "zeroed"


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_dora_on_zero_rows_starts_at_the_base_and_stays_finite(zeroed: Path, tmp_path: Path, quantization: str) -> None:
    base = load_base(str(zeroed), quantization=quantization, dtype="float32", keep_quantized=False)
    expected = logits(base.model)
    model = attach_new(base, LoraSettings(r=4, lora_dropout=0.0, **DORA), seed=1)
    assert torch.isfinite(logits(model)).all()
    assert torch.allclose(logits(model), expected, atol=1e-6)
    detach(model)
    trained = train(base, store=tmp_path / "store", steps=4, **DORA)
    assert torch.isfinite(logits(trained)).all()
    layer = trained.base_model.model.get_submodule(O_PROJ)
    assert not layer.lora_B["default"].weight[list(ZERO_ROWS)].any()
    assert not layer.lora_magnitude_vector["default"].weight[list(ZERO_ROWS)].any()
    assert layer.lora_B["default"].weight.any()


def test_a_trained_dora_with_zero_rows_is_attached_swapped_and_merged_with_proof(zeroed: Path, tmp_path: Path) -> None:
    base = load_base(str(zeroed), quantization="none", dtype="float32")
    trained = train(base, store=tmp_path / "store", steps=4, **DORA)
    expected = logits(trained)
    put(trained, base, "dora", tmp_path / "store")
    fresh = load_base(str(zeroed), quantization="none", dtype="float32")
    assert torch.equal(logits(attach(fresh, "dora", tmp_path / "store")), expected)
    pooled = load_base(str(zeroed), quantization="none", dtype="float32")
    with AdapterPool(pooled, tmp_path / "store") as pool, use(pool, "dora") as model:
        assert torch.allclose(logits(model), expected, atol=2e-6)
    merge_adapter("dora", tmp_path / "merged", base=str(zeroed), store=tmp_path / "store")
    merged = load_base(str(tmp_path / "merged"), quantization="none", dtype="float32")
    assert torch.allclose(logits(merged.model), expected, atol=2e-6)
    assert not merged.model.get_submodule(O_PROJ).weight[list(ZERO_ROWS)].any()


def test_the_factor_of_a_zero_row_is_zero_whatever_its_magnitude() -> None:
    factor = row_factor(torch.tensor([6.0, 0.0, 5.0]), torch.tensor([3.0, 0.0, 0.0]))
    assert factor.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_base_that_gives_nan_is_stopped_with_its_layer(value: float, tmp_path: Path) -> None:
    make_tiny("llama", tmp_path / "broken")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 7] = value

    edit(tmp_path / "broken", change)
    base = load_base(str(tmp_path / "broken"), quantization="none", dtype="float32")
    with pytest.raises(DivergedError, match=r"model\.layers\.1\.mlp\.up_proj"):
        greedy(base.model, base.tokenizer, [[5, 6, 7], [8, 9]], max_new_tokens=3)
    with pytest.raises(DivergedError, match=r"2 of 2 scored rows.*model\.layers\.1\.mlp\.up_proj"):
        score_options(base.model, [([5, 6], [[7], [8]]), ([9, 9], [[7], [8]])], 64)


def test_an_adapter_that_overflows_is_stopped_with_its_layer_alone_and_in_the_pool(tmp_path: Path) -> None:
    make_tiny("llama", tmp_path / "base")
    base = load_base(str(tmp_path / "base"), quantization="none", dtype="float32")
    trained = train(base, store=tmp_path / "store", target_modules=["down_proj"])
    layer = trained.base_model.model.get_submodule(DOWN)
    with torch.no_grad():
        layer.lora_A["default"].weight.fill_(1e30)
        layer.lora_B["default"].weight.fill_(1e30)
    put(trained, base, "loud", tmp_path / "store")
    with pytest.raises(DivergedError, match=r"layers\.1\.mlp\.down_proj"):
        greedy(trained, base.tokenizer, [[5, 6, 7]], max_new_tokens=3)
    fresh = load_base(str(tmp_path / "base"), quantization="none", dtype="float32")
    refused = pytest.raises(DivergedError, match=r"layers\.1\.mlp\.down_proj")
    with AdapterPool(fresh, tmp_path / "store") as pool, use(pool, "loud") as model, refused:
        greedy(model, fresh.tokenizer, [[5, 6, 7]], max_new_tokens=3)
