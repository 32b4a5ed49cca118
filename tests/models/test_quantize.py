"""Quantized bases: what is quantized, and gradients that an evaluation in between does not change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import LoraConfig, get_peft_model

from lora_med.models.base import load_base
from lora_med.models.quantize import _compile_later, bitsandbytes_config, keep_gradients_exact
from lora_med.models.weight_loading import _device_map
from tests.tiny import make_tiny

IDS = torch.tensor([[1, 50, 60, 70, 80, 90]])


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("tied"), tie=True)


@pytest.mark.parametrize(("quantization", "kind"), [("4bit", Linear4bit), ("8bit", Linear8bitLt)])
def test_all_layers_but_the_tied_head_are_quantized(tied: Path, quantization: str, kind: type) -> None:
    model = load_base(str(tied), quantization=quantization).model
    assert sum(isinstance(module, kind) for module in model.modules()) == 2 * 7
    assert type(model.lm_head) is torch.nn.Linear
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_nf4_and_double_quantization_are_the_default(tied: Path) -> None:
    layer = load_base(str(tied)).model.model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    plain = load_base(str(tied), double_quant=False, quant_type="fp4").model.model.layers[0].mlp.up_proj
    assert plain.weight.quant_state.quant_type == "fp4"
    assert not plain.weight.quant_state.nested


def test_no_4bit_layer_may_take_the_path_without_a_backward(tied: Path) -> None:
    model = load_base(str(tied)).model
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    layers[0].support_avx512bf16_for_cpu = True
    assert keep_gradients_exact(model) == len(layers) == 14
    assert not layers[0].support_avx512bf16_for_cpu


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def test_an_evaluation_leaves_the_gradients_as_they_were(tied: Path) -> None:
    base = load_base(str(tied), dtype="bfloat16")
    model: Any = get_peft_model(base.model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    before = gradients(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=IDS)
    after = gradients(model)
    assert len(before) == 2 * 14
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_under_fsdp_four_bits_are_stored_in_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    config = bitsandbytes_config("4bit", quant_type="nf4", double_quant=True, dtype="bfloat16")
    assert config.bnb_4bit_quant_storage == torch.bfloat16


def test_a_base_to_be_sharded_is_loaded_into_host_memory_and_any_other_on_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _device_map("cuda") == {"": 1}
    assert _device_map("cpu") is None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert _device_map("cuda") == {"": "cpu"}


def test_what_is_compiled_later_is_compiled_once_at_its_first_call() -> None:
    asked: list[dict[str, Any]] = []

    def compile_now(function: Any, **options: Any) -> Any:
        asked.append(options)
        return lambda *arguments, **named: ("compiled", function(*arguments, **named))

    def add(one: int, *, other: int) -> int:
        """Add."""
        return one + other

    for later in (_compile_later(compile_now, add, dynamic=False), _compile_later(compile_now, dynamic=False)(add)):
        asked.clear()
        assert later.__doc__ == "Add."
        assert asked == []
        assert later(1, other=2) == later(1, other=2) == ("compiled", 3)
        assert asked == [{"dynamic": False}]


def test_bitsandbytes_is_loaded_without_the_compiler() -> None:
    code = """
import sys, torch
from lora_med.models.quantize import load_bitsandbytes
compile_now = torch.compile
load_bitsandbytes()
assert "bitsandbytes" in sys.modules and torch.compile is compile_now
assert "torch._inductor.compile_fx" not in sys.modules
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
values = torch.linspace(-1, 1, 64 * 64).reshape(64, 64)
assert (dequantize_4bit(*quantize_4bit(values, quant_type="nf4")) - values).abs().max() < 0.1
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert "kernels" not in done.stderr  # its advice on CPUs with AVX512-BF16


def test_a_recipe_does_not_load_the_compiler_before_its_trainer(tmp_path: Path) -> None:
    code = """
import sys, lora_med
lora_med.open_data
from lora_med.config.schema import TrainSettings
from lora_med.training.settings_check import check_training
check_training(TrainSettings(output_dir="run"))
lora_med.load_base("micro", quantization="none")
import lora_med.training.trainer
assert "bitsandbytes" in sys.modules
assert "torch._inductor.compile_fx" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path)
