"""Adapters on bases whose layers are laid out otherwise: joined rows, and PEFT's names for experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lora_med.adapters.runtime.peft_injection import check_attached, moves_names, named_layers_only
from lora_med.adapters.runtime.swap import load_many, use
from lora_med.adapters.store.store import CONFIG
from lora_med.adapters.tensors.method import method_for
from lora_med.config.schema import LoraSettings
from lora_med.errors import SettingsError
from lora_med.files import read_json
from lora_med.models.base import load_base
from tests.adapters.conftest import put, train
from tests.tiny_families import make_family

PROMPTS = torch.tensor([[1, 50, 60, 70], [1, 80, 81, 82]])


def test_rows_that_a_model_joins_with_their_tokens_get_their_own_adapters(tmp_path: Path) -> None:
    """OPT hands its feed-forward layers (rows x tokens, width)."""
    folder = make_family("opt", tmp_path / "opt")
    for name, seed in (("one", 1), ("two", 2)):
        base = load_base(str(folder), quantization="none")
        put(train(base, store=tmp_path, seed=seed, target_modules=["fc1"]), base, name, tmp_path)
    base = load_base(str(folder), quantization="none", attention="standard")
    with load_many(base, ["one", "two"], tmp_path) as pool, torch.no_grad():
        alone = []
        for name, prompt in zip(("one", "two"), PROMPTS, strict=True):
            with use(pool, name) as model:
                alone.append(model(input_ids=prompt[None]).logits)
        with use(pool, ["one", "two"]) as model:
            together = model(input_ids=PROMPTS).logits
            with pytest.raises(SettingsError, match="named for 2 rows"):
                model(input_ids=PROMPTS.repeat(2, 1))
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert (alone[0] - together[1]).abs().max() > 1e-3


def test_an_adapter_stays_on_the_shared_expert_that_it_names(tmp_path: Path) -> None:
    folder = make_family("deepseek_v3", tmp_path / "moe")
    base = load_base(str(folder), quantization="none")
    model = train(base, store=tmp_path)
    adapter = put(model, base, "shared", tmp_path)
    config = read_json(adapter / CONFIG)
    assert "down_proj" in config["target_modules"] and not config.get("target_parameters")
    readme = (adapter / "README.md").read_text()
    assert "convert_peft_config_for_transformers = lambda" in readme


def test_an_adapter_on_attention_alone_needs_no_further_line(tmp_path: Path) -> None:
    model = load_base(str(make_family("deepseek_v3", tmp_path / "moe")), quantization="none").model
    assert not moves_names(model, LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert moves_names(model, LoraConfig(target_modules=["down_proj"]))
    assert moves_names(model, LoraConfig(target_modules=["up_proj"]))


def test_layers_that_peft_adds_or_leaves_out_are_named(tmp_path: Path) -> None:
    base = load_base(str(make_family("gemma3", tmp_path / "gemma3")), quantization="none")
    with named_layers_only():
        model = get_peft_model(base.model, LoraConfig(target_modules=["q_proj"]))
    wanted = method_for(base.model, LoraSettings(r=8, target_modules=["q_proj"])).expected(base.model)
    layer = r"base_model\.model\.model\.vision_tower"
    with pytest.raises(SettingsError, match=rf"attaches 2 tensors too many, 0 too few and 0 of .* such as '{layer}"):
        check_attached(model, "default", wanted)
    more = {**wanted, "base_model.model.lm_head.lora_A.weight": (8, 64)}
    with pytest.raises(SettingsError, match="2 tensors too many, 1 too few"):
        check_attached(model, "default", more)
    other = {name: (4, *shape[1:]) if "lora_A" in name else shape for name, shape in wanted.items()}
    with pytest.raises(SettingsError, match="and 2 of another shape"):
        check_attached(model, "default", other)


def test_attaching_stops_where_peft_adapts_more_than_was_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(make_family("gemma3", tmp_path / "gemma3")), quantization="none")
    monkeypatch.setattr(LoraConfig, "exclude_modules", property(lambda _: None, lambda *_: None), raising=False)
    with pytest.raises(SettingsError, match="tensors too many"):
        train(base, store=tmp_path, steps=0)
