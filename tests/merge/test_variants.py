"""Every kind of adapter that PEFT saves, merged: the model that transformers loads says what PEFT's own says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lora_med.errors import IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.merge.fold.fold import fold
from lora_med.merge.fold.merge_plan import Plan, plan_merge
from lora_med.merge.merge import copy_around
from lora_med.merge.proof.tensor_check import recompute
from tests.tiny import make_tiny

IDS = torch.tensor([[1, 5, 7, 60, 70, 80, 5, 90]])
WHOLE = {"modules_to_save", "trainable_token_indices"}
# family, whether the head is tied to the embedding, PEFT's settings
VARIANTS: dict[str, tuple[str, bool | None, dict[str, Any]]] = {
    "lora bias": ("qwen2", None, {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}),
    "lora bias, gpt2": ("gpt2", None, {"target_modules": ["c_attn"], "lora_bias": True, "fan_in_fan_out": True}),
    "all biases": ("qwen2", None, {"target_modules": ["q_proj"], "bias": "all"}),
    "adapted biases": ("qwen2", None, {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "saved head": ("llama", False, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "saved head, tied": ("llama", True, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "saved embedding": ("llama", False, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    "saved embedding, tied": ("llama", True, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    "saved pair, tied": (
        "llama",
        True,
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "saved both ends, tied": (
        "llama",
        True,
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "saved norms": ("llama", None, {"target_modules": ["q_proj"], "modules_to_save": ["norm", "input_layernorm"]}),
    "tokens": ("llama", False, {"target_modules": ["q_proj"], "trainable_token_indices": [5, 7]}),
    "tokens, tied": ("llama", True, {"target_modules": ["q_proj"], "trainable_token_indices": [5, 7]}),
    "tokens of both ends": (
        "llama",
        False,
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5, 7], "lm_head": [5]}},
    ),
    "embedding": ("llama", False, {"target_modules": ["q_proj", "embed_tokens"]}),
    "embedding, tied": ("llama", True, {"target_modules": ["q_proj", "embed_tokens"]}),
    "embedding, kept tied": (
        "llama",
        True,
        {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    ),
    "head, kept tied": ("llama", True, {"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True}),
    "tokens, kept tied": (
        "llama",
        True,
        {"target_modules": ["q_proj"], "trainable_token_indices": [5, 7], "ensure_weight_tying": True},
    ),
    "embedding, gpt2": ("gpt2", None, {"target_modules": ["wte", "c_attn"], "fan_in_fan_out": True}),
    "embedding, DoRA": ("llama", False, {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}),
    "head": ("llama", False, {"target_modules": ["q_proj", "lm_head"]}),
    "head, tied": ("llama", True, {"target_modules": ["q_proj", "lm_head"]}),
    "head, tied, rsLoRA": ("gemma", True, {"target_modules": ["q_proj", "lm_head"], "use_rslora": True}),
    "DoRA on qwen3": ("qwen3", None, {"target_modules": "all-linear", "use_dora": True}),
    "a regular expression": ("mistral", None, {"target_modules": r".*layers\.1\..*(q|v)_proj"}),
    "resized": ("llama", False, {"target_modules": ["q_proj"], "resize": 270}),
    "resized, tied": ("llama", True, {"target_modules": ["q_proj"], "resize": 270}),
}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def make_variant(kind: str, folder: Path) -> tuple[Path, Path, torch.Tensor]:
    """Base and adapter folders, and the logits of PEFT's model, every trained tensor at random."""
    family, tie, options = VARIANTS[kind]
    options = dict(options)
    base = make_tiny(family, folder / "base", **({} if tie is None else {"tie": tie}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        torch.manual_seed(3)
        if resize := options.pop("resize", None):
            model.resize_token_embeddings(resize)
        adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **options))
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                grown = 0.1 * torch.randn_like(weight)
                weight.data = weight.data * (1 + grown) if "magnitude" in name else weight.data + grown
        adapted.save_pretrained(folder / "adapter")
    return base, folder / "adapter", logits(adapted)


def merged(base: Path, adapter: Path, out: Path) -> tuple[Plan, Any]:
    """The plan, and the merged model as transformers loads it."""
    plan = plan_merge(adapter, base)
    out.mkdir()
    fold(plan, out)
    copy_around(base, out, plan.settings, None)
    return plan, AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_merged_model_says_what_pefts_model_says(kind: str, tmp_path: Path) -> None:
    base, adapter, expected = make_variant(kind, tmp_path)
    plan, model = merged(base, adapter, tmp_path / "out")
    bare = logits(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    found = logits(model)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2e-5 < (found[..., : bare.shape[-1]] - bare).abs().max()
    proof = recompute(plan, tmp_path / "out")
    assert proof.largest_error <= 1


@pytest.mark.parametrize(
    ("kind", "tied"),
    [
        ("saved head, tied", False),
        ("saved embedding, tied", False),
        ("saved pair, tied", True),
        ("saved both ends, tied", False),
        ("tokens, tied", True),
        ("head, tied", False),
        ("embedding, tied", False),
        ("resized, tied", True),
    ],
)
def test_a_tied_pair_becomes_untied_only_where_its_ends_differ(kind: str, tied: bool, tmp_path: Path) -> None:
    base, adapter, _ = make_variant(kind, tmp_path)
    merged(base, adapter, tmp_path / "out")
    assert read_json(tmp_path / "out/config.json")["tie_word_embeddings"] is tied
    assert ("lm_head.weight" in load_file(tmp_path / "out/model.safetensors")) is not tied


def test_a_resized_vocabulary_is_in_the_settings(tmp_path: Path) -> None:
    base, adapter, _ = make_variant("resized", tmp_path)
    _, model = merged(base, adapter, tmp_path / "out")
    assert model.config.vocab_size == 270 == model.get_input_embeddings().weight.shape[0]


def test_a_bias_for_a_layer_without_one_is_refused(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], lora_bias=True, task_type="CAUSAL_LM"))
        adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(IntegrityError, match="has none to add it to"):
        plan_merge(tmp_path / "adapter", base)


def test_dora_with_a_bias_in_b_is_refused_for_peft_itself_is_of_two_minds(tmp_path: Path) -> None:
    base, adapter, _ = make_variant("lora bias", tmp_path)
    config = (adapter / "adapter_config.json").read_text().replace('"use_dora": false', '"use_dora": true')
    (adapter / "adapter_config.json").write_text(config)
    with pytest.raises(SettingsError, match="DoRA and lora_bias"):
        plan_merge(adapter, base)
