"""Which layers an adapter is on, by the model's structure, in every family; and the names of tensors on disk."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_med.adapters.tensors.method import method_for
from lora_med.config.schema import LoraSettings
from lora_med.errors import SettingsError
from lora_med.models.base import choose_attention, load_base
from lora_med.models.files.resolve import model_class
from lora_med.models.structure.adaptable_layers import (
    adaptable_layers,
    describe_reach,
    language_part,
    layers_left_out,
    share_reached,
)
from lora_med.models.structure.backbone import backbone
from lora_med.models.structure.exclusion import ends_in, exclusion
from lora_med.models.structure.expert_stacks import adapted_stacks, choose_stacks
from lora_med.models.structure.linear_layers import linear_layers
from lora_med.models.structure.tensor_names import DiskNames
from tests.tiny_families import ALL, CLASSES, MULTIMODAL, family_config, make_family


def shape_of(family: str) -> Any:
    config = family_config(family)
    config.architectures = [CLASSES[family]] if family in CLASSES else None
    with torch.device("meta"):
        return model_class(config)._from_config(config)


@pytest.mark.parametrize("family", MULTIMODAL)
def test_nothing_outside_the_language_layers_is_adapted(family: str) -> None:
    model = shape_of(family)
    assert type(model).__name__ == CLASSES[family]
    names = [layer.name for layer in adaptable_layers(model)]
    assert language_part(model) == "model.language_model"
    assert names and all(name.startswith("model.language_model.layers.") for name in names)
    vision = [layer.name for layer in linear_layers(model) if "vision" in layer.name or "visual" in layer.name]
    left_out = {layer.name for layers in layers_left_out(model).values() for layer in layers}
    assert vision and set(vision) <= left_out


def test_a_layer_that_runs_only_with_an_image_is_not_adapted() -> None:
    assert {layer.layer for layer in adaptable_layers(shape_of("mllama"))} == {0}  # layer 1 attends to the image


def test_routers_are_not_adapted_and_shared_experts_are() -> None:
    names = {layer.name for layer in adaptable_layers(shape_of("qwen2_moe"))}
    assert "model.layers.0.mlp.shared_expert.down_proj" in names
    assert not any("gate" in name.split(".")[-1] and not name.endswith("gate_proj") for name in names)
    llama = {layer.name for layer in adaptable_layers(shape_of("llama4_text"))}
    assert any("shared_expert" in name for name in llama) and not any("router" in name for name in llama)


def test_of_a_state_space_mixer_only_the_first_product_is_adapted() -> None:
    leaves = {layer.leaf for layer in adaptable_layers(shape_of("falcon_h1")) if ".mamba." in layer.name}
    assert leaves == {"in_proj"}
    assert {layer.leaf for layer in adaptable_layers(shape_of("mamba"))} == {"in_proj"}


@pytest.mark.parametrize("family", ALL)
def test_ends_of_names_and_the_pattern_give_the_chosen_layers(family: str) -> None:
    """By PEFT's two rules: a name ends in one of the targets, and does not match `exclude_modules`."""
    model = shape_of(family)
    chosen = {layer.name for layer in adaptable_layers(model)}
    names = [name for name, _ in model.named_modules()]
    ends = sorted({name.rpartition(".")[2] for name in chosen})
    pattern = exclusion(names, ends, chosen)
    matched = {name for name in names if any(ends_in(name, end) for end in ends)}
    assert {name for name in matched if pattern is None or not re.fullmatch(pattern, name)} == chosen
    assert pattern is None or len(pattern) < 200


def test_the_pattern_names_the_smallest_subtree_that_holds_no_chosen_layer() -> None:
    names = ["a.vision.0.q", "a.vision.1.q", "a.text.0.q", "a.text.0.mixer.q", "a.text.1.q", "a.text.1.mixer.q"]
    pattern = exclusion(names, ["q"], {"a.text.0.q", "a.text.1.q"})
    assert pattern == r"a\.vision(\..+)?|a\.text\.\d+\.mixer(\..+)?"
    one_layer = exclusion(["a.0.x.q", "a.1.x.q"], ["q"], {"a.0.x.q"})
    assert one_layer == r"a\.1(\..+)?"
    assert exclusion(["a.q"], ["q"], {"a.q"}) is None


def test_the_share_of_weights_is_counted_by_hand() -> None:
    model = shape_of("llama")
    # a layer: q and o 64 x 64, k and v 32 x 64, three of 64 x 128; embedding and head 264 x 64; five norms of 64
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128
    assert share_reached(model) == pytest.approx(2 * layer / (2 * layer + 2 * 264 * 64 + 5 * 64))
    only_q = [layer for layer in adaptable_layers(model) if layer.leaf == "q_proj"]
    assert share_reached(model, only_q) == pytest.approx(2 * 64 * 64 / (2 * layer + 2 * 264 * 64 + 5 * 64))


def test_the_log_says_what_is_reached_and_what_is_left_out() -> None:
    model = shape_of("gemma3")
    line = describe_reach(model, adaptable_layers(model))
    assert line.startswith("14 layers with ") and "text does not pass through them" in line
    experts = shape_of("mixtral")
    # 2 layers of 4 experts with 256 x 64 and 64 x 128 weights, of all that the model has
    share = 2 * 4 * (256 * 64 + 64 * 128) / sum(parameter.numel() for parameter in experts.parameters())
    line = describe_reach(experts, adaptable_layers(experts))
    assert f"the routed experts (4 tensors, {share:.0%} of the weights); lora.target_experts=true adapts them" in line
    stacks = adapted_stacks(experts, choose_stacks(experts))
    assert "left out" not in describe_reach(experts, adaptable_layers(experts), stacks)
    both = share_reached(experts, adaptable_layers(experts), stacks)
    assert both == pytest.approx(share_reached(experts) + share)


@pytest.mark.parametrize(
    ("family", "attention"),
    [("llama", "lora_med_sdpa"), ("gemma2", "eager"), ("falcon", "sdpa"), ("mamba", "eager"), ("lfm2", "sdpa")],
)
def test_the_attention_is_one_that_the_class_can_run(family: str, attention: str) -> None:
    config, choices = family_config(family), []
    assert choose_attention("auto", config, choices) == attention
    assert choose_attention("standard", config, []) == ("eager" if attention == "eager" else "sdpa")
    assert len(choices) == 1


@pytest.mark.parametrize("family", ["gemma3", "mllama", "llava", "qwen2_5_vl", "llama"])
def test_a_tensor_is_found_under_its_name_on_disk(family: str, tmp_path: Path) -> None:
    """The numbers that transformers loads into a parameter are those of the tensor that is named."""
    folder = make_family(family, tmp_path / family)
    stored = load_file(folder / "model.safetensors")
    config = family_config(family)
    config.architectures = json.loads((folder / "config.json").read_text())["architectures"]
    model = model_class(config).from_pretrained(folder)
    names = DiskNames(folder, stored)
    layers = adaptable_layers(model)
    for layer in layers:
        name = names.of(f"{layer.name}.weight")
        assert name is not None and torch.equal(stored[name], model.get_parameter(f"{layer.name}.weight"))
    assert names.of("model.no.such.weight") is None


def test_the_head_reads_the_module_before_it_also_where_the_class_names_none() -> None:
    for family, name in (("llama", "model"), ("llama4_text", "model"), ("gemma3", "model")):
        model = shape_of(family)
        assert backbone(model) is model.get_submodule(name)


def test_a_base_that_reads_weights_directly_is_not_quantized(tmp_path: Path) -> None:
    folder = make_family("mamba", tmp_path / "mamba")
    with pytest.raises(SettingsError, match="'mamba' reads weights of its layers directly"):
        load_base(str(folder), quantization="4bit")
    assert load_base(str(folder), quantization="none").quantization == "none"


def test_a_vision_layer_named_by_hand_is_refused_with_the_reason() -> None:
    with pytest.raises(SettingsError, match="text does not pass through them"):
        method_for(shape_of("gemma3"), LoraSettings(target_modules=["fc1"]))
