"""Adapters of routed experts: trained, published, attached, run from a pool, compared, composed and adopted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from lora_med.adapters.algebra.compose import compose
from lora_med.adapters.algebra.diff import diff
from lora_med.adapters.foreign.import_peft import Origin, adopt
from lora_med.adapters.runtime.attach import attach, attach_new
from lora_med.adapters.runtime.peft_injection import named_layers_only
from lora_med.adapters.runtime.swap import load_many, use
from lora_med.adapters.store.verify import verify
from lora_med.adapters.tensors import expert_layout
from lora_med.config.parse import parse
from lora_med.config.schema import LoraSettings
from lora_med.errors import DependencyMissingError, IntegrityError, SettingsError
from lora_med.models.base import Base, load_base
from lora_med.models.structure.expert_stacks import adapted_stacks, choose_stacks, expert_stacks
from tests.adapters.conftest import logits, put, train
from tests.tiny_families import EXPERTS, make_family


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DeepSeek's structure: a dense layer, routed and shared experts."""
    return make_family("deepseek_v3", tmp_path_factory.mktemp("moe") / "base")


@pytest.fixture(scope="module")
def shelf(moe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two adapters of routed experts, of ranks 4 and 2, and one of layers alone."""
    store = tmp_path_factory.mktemp("store")
    for name, seed, lora in (
        ("one", 1, {"target_experts": True}),
        ("two", 2, {"target_experts": True, "r": 2, "target_modules": ["o_proj"]}),
        ("layers", 3, {}),
    ):
        base = load(moe)
        put(train(base, store=store, seed=seed, **lora), base, name, store)
    return store


def load(folder: Path) -> Base:
    return load_base(str(folder), quantization="none", dtype="float32", attention="standard")


@pytest.mark.parametrize("family", EXPERTS)
def test_step_zero_is_the_base_and_attaching_again_gives_the_trained_logits(family: str, tmp_path: Path) -> None:
    folder = make_family(family, tmp_path / family)
    bare = logits(load(folder).model)
    assert torch.equal(logits(train(load(folder), store=tmp_path, steps=0, target_experts=True)), bare)
    base = load(folder)
    model = train(base, store=tmp_path, target_experts=True)
    trained = logits(model)
    experts = [name for name, parameter in model.named_parameters() if ".experts." in name and "lora_B" in name]
    assert experts and all(bool(model.get_parameter(name).any()) for name in experts)
    put(model, base, "experts", tmp_path)
    assert torch.equal(logits(attach(load(folder), "experts", tmp_path)), trained)
    assert (trained - bare).abs().max() > 1e-2
    with load_many(load(folder), ["experts"], tmp_path) as pool, use(pool, "experts") as swapped:
        assert torch.allclose(logits(swapped), trained, atol=1e-5)


def test_a_pool_leaves_the_base_as_it_was_and_two_pools_close_in_any_order(moe: Path, shelf: Path) -> None:
    base = load(moe)
    bare = logits(base.model)
    first, second = load_many(base, ["one"], shelf), load_many(base, ["two"], shelf)
    with use(first, "one") as model:
        one = logits(model)
    assert torch.equal(logits(base.model), bare) and not torch.equal(one, bare)
    first.close()
    with use(second, "two") as model:
        assert not torch.equal(logits(model), bare)
    second.close()
    assert torch.equal(logits(base.model), bare)
    assert all("forward" not in vars(module) for module in base.model.modules())


def test_rows_of_several_adapters_are_refused_by_name(moe: Path, shelf: Path) -> None:
    with load_many(load(moe), ["one", "layers"], shelf) as pool:
        for names in (["one", "layers"], [None, "one"]):
            with pytest.raises(SettingsError, match="'one' updates routed experts"), use(pool, names):
                pass
        with use(pool, ["layers", None]), use(pool, ["one", "one"]) as model:
            assert not torch.equal(logits(model), logits(load(moe).model))


def test_the_verified_adapter_has_the_shapes_that_the_base_requires(moe: Path, shelf: Path) -> None:
    result = verify(shelf / "one", str(moe))
    assert result.intact and "names and shapes that the base requires" in result.checks[-1].detail
    tensors = load_file(shelf / "one" / "adapter_model.safetensors")
    experts = "base_model.model.model.layers.1.mlp.experts"
    # 4 experts of rank 4; gate and up have 2 x 64 outputs of 64 inputs, down has 64 of 64
    assert tensors[f"{experts}.base_layer.lora_A.weight"].shape == (16, 64)
    assert tensors[f"{experts}.base_layer.lora_B.weight"].shape == (128, 16)
    assert tensors[f"{experts}.lora_B.weight"].shape == (64, 16)
    config = json.loads((shelf / "one" / "adapter_config.json").read_text())
    assert config["target_parameters"] == ["experts.down_proj", "experts.gate_up_proj"]
    assert "target_parameters" not in json.loads((shelf / "layers" / "adapter_config.json").read_text())
    assert json.loads((shelf / "one" / "card.json").read_text())["method"]["target_parameters"]
    assert "target_parameters" not in json.loads((shelf / "layers" / "card.json").read_text())["method"]


def dense(store: Path, name: str, folder: Path) -> dict[str, torch.Tensor]:
    """Every parameter's change by PEFT's own merge, in float64."""
    base = load(folder)
    before = {key: value.double() for key, value in base.model.named_parameters()}
    before = {key: value.clone() for key, value in before.items()}
    merged = attach(base, name, store).merge_and_unload()
    return {key: value.double() - before[key] for key, value in merged.named_parameters()}


def test_two_adapters_are_compared_as_their_changes_are(moe: Path, shelf: Path) -> None:
    changes = [dense(shelf, name, moe) for name in ("one", "two")]
    result = diff(shelf / "one", shelf / "two", base=str(moe))
    for layer in (layer for layer in result.layers if ".experts." in layer.layer):
        first, second = (change[layer.layer].flatten() for change in changes)
        assert layer.first == pytest.approx(float(first.norm()), rel=1e-4)
        assert layer.second == pytest.approx(float(second.norm()), rel=1e-4)
        assert layer.cosine == pytest.approx(float(torch.cosine_similarity(first, second, dim=0)), abs=1e-4)
    assert sum(".experts." in layer.layer for layer in result.layers) == 2


def test_a_composed_adapter_is_the_weighted_sum_of_the_changes(moe: Path, shelf: Path) -> None:
    changes = [dense(shelf, name, moe) for name in ("one", "two", "layers")]
    weights = (0.5, 2.0, 1.0)
    compose("sum", [("one", 0.5), ("two", 2.0), ("layers", 1.0)], base=str(moe), store=shelf)
    actual = dense(shelf, "sum", moe)
    for name, change in actual.items():
        expected = sum(weight * parent[name] for weight, parent in zip(weights, changes, strict=True))
        assert torch.allclose(change, torch.as_tensor(expected), atol=1e-5), name


@pytest.mark.parametrize("method", ["svd", "ties", "dare"])
def test_other_methods_of_composing_reach_every_expert(method: str, moe: Path, shelf: Path) -> None:
    composed = compose(f"by-{method}", [("one", 1.0), ("two", 1.0)], method=method, base=str(moe), store=shelf)
    assert 0 <= composed.error < 1
    change = dense(shelf, f"by-{method}", moe)["model.layers.1.mlp.experts.down_proj"]
    assert all(float(expert.norm()) > 0 for expert in change)


def test_a_dora_is_not_composed_with_routed_experts(moe: Path, shelf: Path) -> None:
    base = load(moe)
    put(train(base, store=shelf, use_dora=True, target_modules=["o_proj"]), base, "dora", shelf)
    with pytest.raises(SettingsError, match="a DoRA cannot be combined with an adapter of routed experts"):
        compose("both", [("one", 1.0), ("dora", 1.0)], base=str(moe), store=shelf)


def foreign(folder: Path, out: Path, **options: Any) -> torch.Tensor:
    """Save an adapter with PEFT alone, as other tools do; returns its logits."""
    model = load(folder).model
    with named_layers_only():
        peft_model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, **options))
    torch.manual_seed(0)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.1
    peft_model.save_pretrained(out)
    return logits(peft_model.eval())


@pytest.mark.parametrize("family", ["deepseek_v3", "gpt_oss", "llama4_text"])
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["o_proj"], "target_parameters": ["experts.down_proj", "experts.gate_up_proj"]},
        {"target_modules": [], "target_parameters": ["experts.gate_up_proj"], "use_rslora": True},
        {"target_modules": ["o_proj"], "target_parameters": ["experts.down_proj"], "rank_pattern": {"down_proj": 2}},
    ],
    ids=["both", "gate_up alone, rsLoRA", "another rank"],
)
def test_an_adapter_that_peft_saved_is_adopted_with_equal_logits(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_family(family, tmp_path / "base")
    expected = foreign(folder, tmp_path / "made", **options)
    adopt(tmp_path / "made", base=str(folder), name="made", store=tmp_path / "store", origin=Origin(access="open"))
    assert torch.allclose(logits(attach(load(folder), "made", tmp_path / "store")), expected, atol=1e-6)
    again = PeftModel.from_pretrained(load(folder).model, str(tmp_path / "made"))
    assert torch.allclose(logits(again), expected, atol=1e-6)


def exchanged(folder: Path, version: str | None) -> None:
    """Store the experts of an adapter with inputs and outputs exchanged: expert e's B is the old A of e, transposed."""
    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = load_file(weights)
    for name in [name for name in tensors if ".experts." in name and "lora_A" in name]:
        other = name.replace("lora_A", "lora_B")
        down, up = tensors[name], tensors[other]
        experts = 2 if "feed_forward" in name else 4
        rank = len(down) // experts
        new_down, new_up = torch.zeros(len(down), len(up)), torch.zeros(down.shape[1], len(down))
        for expert in range(experts):
            for inner in range(rank):
                new_down[expert * rank + inner] = up[:, inner * experts + expert]
                new_up[:, inner * experts + expert] = down[expert * rank + inner]
        tensors[name], tensors[other] = new_down, new_up
    save_file(tensors, weights)
    config = json.loads(settings.read_text())
    settings.write_text(json.dumps({**config, "peft_version": version}))


@pytest.mark.parametrize(
    ("family", "version"),
    [
        ("deepseek_v3", "0.18.1"),  # its down projection is square
        ("llama4_text", "0.17.0"),
        ("gpt_oss", "0.19.0"),
        ("mixtral", None),
        ("mixtral", "0.19.0.dev0"),
    ],
)
def test_an_adapter_of_an_earlier_peft_is_read_as_it_was_saved(
    family: str, version: str | None, tmp_path: Path
) -> None:
    folder = make_family(family, tmp_path / "base")
    targets = ["experts.down_proj", "experts.gate_up_proj"]
    expected = foreign(folder, tmp_path / "made", target_modules=["o_proj"], target_parameters=targets)
    exchanged(tmp_path / "made", version)
    adopt(tmp_path / "made", base=str(folder), name="made", store=tmp_path / "store")
    assert torch.allclose(logits(attach(load(folder), "made", tmp_path / "store")), expected, atol=1e-6)


def test_gpt_oss_was_never_exchanged_in_peft_018(tmp_path: Path) -> None:
    folder = make_family("gpt_oss", tmp_path / "base")
    expected = foreign(folder, tmp_path / "made", target_modules=["o_proj"], target_parameters=["experts.down_proj"])
    settings = tmp_path / "made" / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "peft_version": "0.18.0"}))
    adopt(tmp_path / "made", base=str(folder), name="made", store=tmp_path / "store")
    assert torch.allclose(logits(attach(load(folder), "made", tmp_path / "store")), expected, atol=1e-6)


def test_square_experts_of_an_unknown_peft_are_refused(moe: Path, tmp_path: Path) -> None:
    foreign(moe, tmp_path / "made", target_modules=["o_proj"], target_parameters=["experts.down_proj"])
    exchanged(tmp_path / "made", None)
    with pytest.raises(SettingsError, match=r"peft_version is 'None'.*down_proj' exchanged"):
        adopt(tmp_path / "made", base=str(moe), name="made", store=tmp_path / "store")


def test_an_earlier_peft_that_is_installed_is_refused(moe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_layout.metadata, "version", lambda _: "0.19.0")
    with pytest.raises(DependencyMissingError, match=r"PEFT 0\.19\.0 exchanges inputs and outputs"):
        attach_new(load(moe), LoraSettings(target_experts=True), seed=1)
    attach_new(load(moe), LoraSettings(), seed=1)


def test_a_foreign_adapter_of_another_parameter_is_refused_by_name(moe: Path, tmp_path: Path) -> None:
    foreign(moe, tmp_path / "made", target_modules=["o_proj"], target_parameters=["gate.weight"])
    with pytest.raises(SettingsError, match=r"'gate.weight' holds no routed experts"):
        adopt(tmp_path / "made", base=str(moe), name="made", store=tmp_path / "store")


@pytest.mark.parametrize("damage", ["half", "shape", "left over"])
def test_a_damaged_foreign_adapter_is_refused(damage: str, moe: Path, tmp_path: Path) -> None:
    targets = ["experts.down_proj", "experts.gate_up_proj"]
    foreign(moe, tmp_path / "made", target_modules=["o_proj"], target_parameters=targets)
    weights = tmp_path / "made" / "adapter_model.safetensors"
    tensors = load_file(weights)
    key = next(name for name in tensors if ".experts.base_layer.lora_A" in name)
    if damage == "half":
        del tensors[key]
    elif damage == "shape":
        tensors[key] = tensors[key][:-1].clone()
    else:
        config = json.loads((tmp_path / "made" / "adapter_config.json").read_text())
        config["target_parameters"] = targets[:1]
        (tmp_path / "made" / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, weights)
    with pytest.raises(IntegrityError):
        adopt(tmp_path / "made", base=str(moe), name="made", store=tmp_path / "store")


@pytest.mark.parametrize(
    "setting",
    ["lora.lora_dropout=0.1", "lora.use_dora=true", "lora.init_lora_weights=pissa", "lora.task_type=TOKEN_CLS"],
)
def test_what_peft_cannot_do_for_experts_is_refused_with_the_settings(setting: str) -> None:
    with pytest.raises(SettingsError, match="PEFT cannot combine target_experts with " + setting[5:].split("=")[0]):
        parse(None, ["lora.target_experts=true", setting])


def test_dropout_is_zero_with_experts_unless_it_was_set(caplog: pytest.LogCaptureFixture, moe: Path) -> None:
    assert parse(None, ["lora.target_experts=true"]).lora.lora_dropout == 0
    assert parse(None, []).lora.lora_dropout == 0.05
    with caplog.at_level("INFO"):
        attach_new(load(moe), LoraSettings(target_experts=True), seed=1)
    assert "lora_dropout: 0, because PEFT drops no inputs of routed experts" in caplog.messages
    assert any("2 stacks of routed experts with" in line for line in caplog.messages)


def test_a_base_without_routed_experts_is_refused(llama: Path) -> None:
    with pytest.raises(SettingsError, match="no parameter that holds a matrix of each"):
        attach_new(load(llama), LoraSettings(target_experts=True), seed=1)


def test_experts_of_some_layers_alone(tmp_path: Path) -> None:
    base = load(make_family("mixtral", tmp_path / "mixtral"))
    targets = choose_stacks(base.model, [1])
    assert targets == ("model.layers.1.mlp.experts.down_proj", "model.layers.1.mlp.experts.gate_up_proj")
    model = train(base, store=tmp_path, target_experts=True, layers_to_transform=[1])
    assert {stack.layer for stack in adapted_stacks(model.get_base_model(), targets)} == {1}
    put(model, base, "upper", tmp_path)
    assert torch.equal(logits(attach(load(tmp_path / "mixtral"), "upper", tmp_path)), logits(model))
    dense_first = load(make_family("deepseek_v3", tmp_path / "deepseek"))
    with pytest.raises(SettingsError, match=r"the layers \[0\] have no routed experts"):
        attach_new(dense_first, LoraSettings(target_experts=True, layers_to_transform=[0]), seed=1)


def test_a_pattern_gives_the_experts_another_rank(moe: Path, tmp_path: Path) -> None:
    base = load(moe)
    patterns: dict[str, Any] = {"rank_pattern": {"experts.down_proj": 2}, "alpha_pattern": {"experts.down_proj": 6}}
    model = train(base, store=tmp_path, target_experts=True, use_rslora=True, **patterns)
    put(model, base, "ranks", tmp_path)
    tensors = load_file(tmp_path / "ranks" / "adapter_model.safetensors")
    assert tensors["base_model.model.model.layers.1.mlp.experts.lora_A.weight"].shape == (8, 64)
    holder = model.base_model.model.model.layers[1].mlp.experts
    assert holder.parameter_name == "down_proj" and holder.scaling["default"] == pytest.approx(6 / math.sqrt(2))
    assert torch.equal(logits(attach(load(moe), "ranks", tmp_path)), logits(model))


def test_training_goes_on_from_an_adapter_of_experts_only_with_experts(moe: Path, shelf: Path) -> None:
    base = load(moe)
    model = train(base, store=shelf, steps=0, target_experts=True, continue_from="one")
    assert torch.equal(logits(model), logits(attach(load(moe), "one", shelf)))
    with pytest.raises(SettingsError, match=r"lora.target_experts: one has experts.down_proj, experts.gate_up_proj"):
        train(load(moe), store=shelf, steps=0, continue_from="one")


def test_a_stack_is_counted_by_hand(moe: Path) -> None:
    stacks = {stack.name: stack for stack in expert_stacks(load(moe).model)}
    gate_up = stacks["model.layers.1.mlp.experts.gate_up_proj"]
    assert (gate_up.experts, gate_up.outputs, gate_up.inputs, gate_up.layer) == (4, 128, 64, 1)
    assert gate_up.numbers == 4 * 128 * 64 and not gate_up.transposed and len(stacks) == 2
