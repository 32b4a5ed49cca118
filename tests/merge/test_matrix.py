"""The matrix: every method on every family, the base as it is and as each quantization leaves it, against PEFT."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lora_med.merge.fold.fold import fold
from lora_med.merge.fold.merge_plan import Quantized, plan_merge
from lora_med.merge.merge import copy_around
from lora_med.merge.proof.tensor_check import recompute
from lora_med.models.base import load_base
from tests.export.engines import make_engine_base
from tests.merge.test_dequantized import loaded_values
from tests.merge.test_fold import in_bfloat16, make_adapter, merged_by_peft
from tests.merge.test_variants import logits
from tests.tiny import FAMILIES, make_tiny, make_tokenizer

METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "patterns": {"rank_pattern": {r".*layers?\.1\..*|h\.1\..*": 2}, "alpha_pattern": {r".*\.o_proj|attn\.c_proj": 5}},
    "biases": {"lora_bias": True},
    "saved head": {"modules_to_save": ["lm_head"]},
    "trained tokens": {"trainable_token_indices": [5, 7]},
}
BIASED = {"gpt2": ["c_attn", "c_fc"], "qwen2": ["q_proj", "v_proj"]}  # families some of whose layers have biases
QUANTIZED = {
    "nf4": Quantized(bits=4, quant_type="nf4", double_quant=True, dtype="float32"),
    "fp4": Quantized(bits=4, quant_type="fp4", double_quant=False, dtype="float32"),
    "int8": Quantized(bits=8, quant_type="nf4", double_quant=True, dtype="float32"),
}
HELD = ("float32", "bfloat16", *QUANTIZED)
CELLS = [(family, method) for family in (*FAMILIES, "gemma3") for method in METHODS]
CELLS = [(family, method) for family, method in CELLS if method != "biases" or family in BIASED]
NEAR = {"float32": 2e-5, "bfloat16": 0.05}  # of logits of about 1; the second is rounded once, to 8 bits of mantissa


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    room = tmp_path_factory.mktemp("bases")

    @cache
    def base_of(family: str, held: str) -> Path:
        folder = room / f"{family}-{held}"
        if held == "bfloat16":
            return in_bfloat16(base_of(family, "float32"), folder)
        if family == "gemma3":
            return make_engine_base(family, folder, tokenizer=make_tokenizer())
        return make_tiny(family, folder)

    return base_of


def as_quantized(base: Path, how: Quantized) -> Any:
    """The base in float32, each layer that bitsandbytes quantizes holding what that layer stands for."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    options: dict[str, Any] = {"quant_type": how.quant_type, "double_quant": how.double_quant, "dtype": how.dtype}
    quantized = load_base(str(base), quantization=f"{how.bits}bit", **options).model
    changed = 0
    for name, module in quantized.named_modules():
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
            plain = model.get_submodule(name)
            values = loaded_values(module)
            plain.weight.data.copy_(values.T if type(plain).__name__ == "Conv1D" else values)
            changed += 1
    assert changed >= 8
    return model


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize(("family", "method"), CELLS)
def test_the_merged_model_answers_as_base_and_adapter(
    family: str, method: str, held: str, bases: Any, tmp_path: Path
) -> None:
    base = bases(family, held if held == "bfloat16" else "float32")
    options = {**METHODS[method], "fan_in_fan_out": family == "gpt2"}
    if method == "biases":
        options["target_modules"] = BIASED[family]
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    plan = plan_merge(adapter, base, QUANTIZED.get(held))
    (tmp_path / "out").mkdir()
    fold(plan, tmp_path / "out")
    copy_around(base, tmp_path / "out", plan.settings, None)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    under = as_quantized(base, QUANTIZED[held]) if held in QUANTIZED else plain
    bare = logits(under)
    expected = logits(PeftModel.from_pretrained(under, adapter))
    error = (logits(found) - expected).abs().max().item()
    assert error < NEAR.get(held, NEAR["float32"]) < (expected - bare).abs().max().item()
    assert recompute(plan, tmp_path / "out").largest_error <= 1
    if held == "bfloat16" and method in ("LoRA", "rsLoRA"):
        peer = merged_by_peft(base, adapter, torch.bfloat16)
        ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).state_dict()
        assert all(torch.equal(value, peer[name]) for name, value in ours.items())
