"""The streamed merge against PEFT's merge_and_unload on the same adapter, in every shape an adapter comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_med.errors import IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.merge.fold import row_blocks as blocks_module
from lora_med.merge.fold.fold import fold
from lora_med.merge.fold.merge_plan import plan_merge
from lora_med.merge.proof.tensor_check import recompute
from lora_med.models.files.weight_files import read_headers
from tests.tiny import make_tiny


def make_adapter(base: Path, folder: Path, *, seed: int = 1, **options: Any) -> Path:
    """A LoRA with random A, B, magnitudes and whatever else is trained, saved by PEFT."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    options.setdefault("target_modules", "all-linear")
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options))
    torch.manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_magnitude" in name:
            weight.data *= 1 + 0.1 * torch.randn_like(weight)
        elif "lora_" in name:
            weight.data = torch.randn_like(weight) * 0.1
        elif weight.requires_grad:
            weight.data = weight.data + torch.randn_like(weight) * 0.1
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    adapted = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=True)
    return adapted.merge_and_unload().state_dict()


def in_bfloat16(base: Path, folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {}),
    "rslora": ("llama", {"use_rslora": True}),
    "patterns": ("llama", {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"o_proj": 5}}),
    "some layers": ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
    "dora": ("llama", {"use_dora": True}),
    "gpt2": ("gpt2", {"fan_in_fan_out": True}),
    "gpt2 square layers": ("gpt2", {"target_modules": ["attn.c_proj"], "fan_in_fan_out": True}),
    "gpt2 dora": ("gpt2", {"fan_in_fan_out": True, "use_dora": True}),
    "fused layers": ("phi3", {}),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_the_merge_equals_pefts_in_fp32(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK_NUMBERS", 1250)  # several blocks a tensor
    family, options = SHAPES[kind]
    base = make_tiny(family, tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    plan = plan_merge(adapter, base)
    (tmp_path / "out").mkdir()
    (path,) = fold(plan, tmp_path / "out")
    found, before = load_file(path), load_file(base / "model.safetensors")
    expected = merged_by_peft(base, adapter, torch.float32)
    assert set(found) == set(before)
    assert plan.changes
    for name, value in found.items():
        assert torch.allclose(value, expected[name], rtol=0, atol=1e-6), name
        assert (name in plan.changes) != torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", ["lora", "rslora", "gpt2", "fused layers"])
def test_a_plain_lora_is_bit_identical_to_pefts_in_bf16(kind: str, tmp_path: Path) -> None:
    family, options = SHAPES[kind]
    base = in_bfloat16(make_tiny(family, tmp_path / "fp32"), tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    (tmp_path / "out").mkdir()
    found = load_file(next(iter(fold(plan_merge(adapter, base), tmp_path / "out"))))
    expected = merged_by_peft(base, adapter, torch.bfloat16)
    for name, value in found.items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, expected[name]), name


def test_the_sum_is_rounded_once(tmp_path: Path) -> None:
    base = in_bfloat16(make_tiny("llama", tmp_path / "fp32"), tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    (tmp_path / "out").mkdir()
    found = load_file(next(iter(fold(plan_merge(adapter, base), tmp_path / "out"))))
    before, update = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    delta = 2.0 * (
        update[f"base_model.model.{name}.lora_B.weight"].double()
        @ update[f"base_model.model.{name}.lora_A.weight"].double()
    )
    exact = before[f"{name}.weight"].double() + delta
    error = (found[f"{name}.weight"].double() - exact).abs() / exact.abs()
    assert error.max() <= 2**-8, "half a unit in the last place of bf16"


@pytest.mark.parametrize(("dtype", "kind"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_another_dtype_takes_every_floating_tensor(dtype: str, kind: torch.dtype, tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    expected = merged_by_peft(base, adapter, torch.float32)
    (tmp_path / "out").mkdir()
    found = load_file(next(iter(fold(plan_merge(adapter, base), tmp_path / "out", dtype=dtype))))
    for name, value in found.items():
        assert value.dtype == kind
        assert torch.allclose(value.float(), expected[name], rtol=2**-8, atol=1e-6), name


def test_shards_stay_shards_and_load(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base", shard="50KB")
    adapter = make_adapter(base, tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    written = fold(plan_merge(adapter, base), tmp_path / "out")
    assert len(written) > 1
    (tmp_path / "out/config.json").write_text((base / "config.json").read_text())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    for name, value in merged_by_peft(base, adapter, torch.float32).items():
        assert torch.allclose(loaded[name], value, rtol=0, atol=1e-6), name
    index = read_json(tmp_path / "out/model.safetensors.index.json")
    assert index["metadata"]["total_size"] == sum(one.size for one in read_headers(base).values())


def test_names_without_their_first_part_are_found_as_in_the_original_gpt2(tmp_path: Path) -> None:
    base = make_tiny("gpt2", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", fan_in_fan_out=True)
    expected = merged_by_peft(base, adapter, torch.float32)
    tensors = {
        name.removeprefix("transformer."): value for name, value in load_file(base / "model.safetensors").items()
    }
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    for name, value in load_file(next(iter(fold(plan_merge(adapter, base), tmp_path / "out")))).items():
        assert torch.allclose(value, expected[f"transformer.{name}"], rtol=0, atol=1e-6), name


def change_config(adapter: Path, **values: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**read_json(path), **values}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"lora_bias": True, "use_dora": True}, "DoRA and lora_bias"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"a_method_of_tomorrow": {"x": 1}}, "a_method_of_tomorrow"),
    ],
)
def test_a_method_that_is_not_known_is_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    change_config(adapter, **values)
    with pytest.raises(SettingsError, match=said):
        plan_merge(adapter, base)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modules_to_save": ["lm_head"]}, "holds no such layer"),
        ({"lora_bias": True}, "bias is missing"),
        ({"use_dora": True}, "magnitude is missing"),
        ({"trainable_token_indices": [3]}, "the file holds none"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
    ],
)
def test_what_the_settings_promise_must_be_in_the_file(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    change_config(adapter, **values)
    with pytest.raises(IntegrityError, match=said):
        plan_merge(adapter, base)


def edit(adapter: Path, change: Any) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({"model.lm_head.weight": torch.zeros(3)}), "is not part of a LoRA adapter"),
        (lambda t: t.update({"base_model.model.lm_head.scales": torch.zeros(3)}), "no tensor 'lm_head.scales'"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(3)}), "is \\(3,\\)"),
        (lambda t: t.pop(f"{Q0}.lora_A.weight"), "half of the update"),
        (lambda t: t.update({f"{Q0}.lora_A.weight": torch.zeros(4, 60)}), "does not fit"),
        (lambda t: t.update({f"{Q0}.lora_A.weight": torch.zeros(3, 64)}), "do not form an update"),
        (
            lambda t: t.update({f"{Q0}.lora_A.weight": torch.zeros(3, 64), f"{Q0}.lora_B.weight": torch.zeros(64, 3)}),
            "has rank 3",
        ),
        (lambda t: t.update({f"{Q0}.lora_magnitude_vector": torch.zeros(64)}), "magnitude is present"),
        (
            lambda t: [t.update({name.replace("layers.0", "layers.7"): t.pop(name)}) for name in list(t)],
            "no tensor for",
        ),
    ],
    ids=["foreign", "unknown", "whole", "lone half", "shape", "halves", "rank", "magnitude", "absent layer"],
)
def test_tensors_that_do_not_fit_are_refused(change: Any, said: str, tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    edit(adapter, change)
    with pytest.raises(IntegrityError, match=said):
        plan_merge(adapter, base)


def test_full_weights_whose_config_says_quantized_are_refused(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    config = read_json(base / "config.json")
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"load_in_4bit": True}}))
    with pytest.raises(IntegrityError, match="no tensor is quantized so"):
        plan_merge(adapter, base)


def test_an_update_that_overflows_is_refused(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    edit(adapter, lambda t: t[f"{Q0}.lora_B.weight"].mul_(1e7))
    (tmp_path / "out").mkdir()
    with pytest.raises(IntegrityError, match="not finite"):
        fold(plan_merge(adapter, base), tmp_path / "out", dtype="float16")


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float32"])
def test_empty_tensors_of_a_base_come_through_in_any_dtype(dtype: str | None, tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    empty = {"odd.rows": torch.zeros(0, 7), "odd.columns": torch.zeros(4, 0), "odd.scalar": torch.tensor(3.0)}
    save_file(tensors | empty, base / "model.safetensors", metadata={"format": "pt"})
    plan = plan_merge(make_adapter(make_tiny("llama", tmp_path / "plain"), tmp_path / "adapter"), base)
    (tmp_path / "out").mkdir()
    (path,) = fold(plan, tmp_path / "out", dtype=dtype)
    found = load_file(path)
    assert [tuple(found[name].shape) for name in empty] == [(0, 7), (4, 0), ()]
    assert found["odd.rows"].dtype == getattr(torch, dtype or "float32")
    name = {"bfloat16": "BF16", "float32": "F32"}.get(dtype or "")
    assert recompute(plan, tmp_path / "out", dtype=name).tensors == len(found)
