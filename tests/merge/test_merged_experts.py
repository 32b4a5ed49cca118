"""Updates of routed experts are merged into the base's own tensors, whatever form its files have, and proved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.store.published import open_published
from lora_med.errors import IntegrityError, SettingsError
from lora_med.merge.fold.fold import fold
from lora_med.merge.fold.merge_plan import plan_merge
from lora_med.merge.merge import merge_adapter, quantized_as
from lora_med.merge.proof.tensor_check import recompute
from lora_med.models.base import load_base
from lora_med.models.files.weight_files import read_headers
from lora_med.models.skeleton import skeleton
from lora_med.models.structure.expert_stacks import ExpertStack, adapted_stacks, choose_stacks
from lora_med.models.structure.quantized_layers import quantized_layers
from lora_med.models.structure.tensor_names import DiskNames, StackPart
from tests.adapters.conftest import logits
from tests.evaluation.published import publish_random
from tests.tiny_families import EXPERTS, make_family

# Families whose files hold a tensor for each expert, one for all, one for all transposed, or one under another name.
FORMS = ("mixtral", "deepseek_v3", "gpt_oss", "llama4_text", "granitemoe")


def load(folder: Path, dtype: str = "float32") -> Any:
    return load_base(str(folder), quantization="none", dtype=dtype, attention="standard").model


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[] if family in FORMS else pytest.mark.slow) for family in EXPERTS]
)
def test_the_merge_has_the_names_of_the_base_and_the_weights_of_peft(family: str, tmp_path: Path) -> None:
    base = make_family(family, tmp_path / "base")
    publish_random(base, "experts", tmp_path / "store", target_experts=True)
    merge = merge_adapter("experts", tmp_path / "out", base=str(base), store=tmp_path / "store")
    assert merge.certificate["probe"]["mean_kl"] < 1e-9 < merge.certificate["probe"]["adapter_effect_kl"]
    assert merge.certificate["tensors"]["largest_error"] <= 1
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert {name: tensor.shape for name, tensor in before.items()} == {
        name: tensor.shape for name, tensor in after.items()
    }
    loaded = load_base(str(base), quantization="none", dtype="float32", attention="standard")
    adapted = attach(loaded, "experts", tmp_path / "store")
    expected = logits(adapted)
    merged = load(tmp_path / "out")
    assert torch.allclose(logits(merged), expected, atol=1e-4)
    for name, parameter in adapted.merge_and_unload().named_parameters():
        assert torch.allclose(merged.get_parameter(name), parameter, atol=1e-6), name


def rewritten(folder: Path, change: Any) -> Path:
    """The base with other tensors in its file."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def fused(tensors: dict[str, torch.Tensor]) -> None:
    """Mixtral's experts as transformers 5 names them in the model."""
    for layer in range(2):
        old, new = f"model.layers.{layer}.block_sparse_moe", f"model.layers.{layer}.mlp"
        parts = {
            part: [tensors.pop(f"{old}.experts.{e}.{part}.weight") for e in range(4)] for part in ("w1", "w2", "w3")
        }
        gate_up = [torch.cat(pair) for pair in zip(parts["w1"], parts["w3"], strict=True)]
        tensors[f"{new}.experts.gate_up_proj"] = torch.stack(gate_up)
        tensors[f"{new}.experts.down_proj"] = torch.stack(parts["w2"])
        tensors[f"{new}.gate.weight"] = tensors.pop(f"{old}.gate.weight")


def test_a_base_whose_files_hold_fused_experts_gets_the_same_merge(tmp_path: Path) -> None:
    apart, together = make_family("mixtral", tmp_path / "a"), make_family("mixtral", tmp_path / "b")
    rewritten(together, fused)
    assert torch.equal(logits(load(apart)), logits(load(together)))
    for folder in (apart, together):
        publish_random(folder, "experts", tmp_path / f"store-{folder.name}", target_experts=True)
        merge_adapter(
            "experts", tmp_path / f"out-{folder.name}", base=str(folder), store=tmp_path / f"store-{folder.name}"
        )
    models = [load(tmp_path / f"out-{folder.name}") for folder in (apart, together)]
    assert all(
        torch.equal(first, second) for first, second in zip(*(model.parameters() for model in models), strict=True)
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_merge_in_16_bits_rounds_once(dtype: str, tmp_path: Path) -> None:
    base = make_family("qwen3_moe", tmp_path / "base")
    publish_random(base, "experts", tmp_path / "store", target_experts=True)
    merge = merge_adapter("experts", tmp_path / "out", base=str(base), store=tmp_path / "store", dtype=dtype)
    assert merge.certificate["tensors"]["largest_error"] <= 1
    exact = attach(load_base(str(base), quantization="none", dtype="float32"), "experts", tmp_path / "store")
    merged = load(tmp_path / "out", dtype)
    for name, parameter in exact.merge_and_unload().named_parameters():
        rounded = parameter.to(getattr(torch, dtype))
        assert (merged.get_parameter(name) != rounded).float().mean() < 1e-3, name


@pytest.mark.parametrize("family", FORMS)
def test_a_wrong_expert_is_found_by_the_proof_of_tensors(family: str, tmp_path: Path) -> None:
    base = make_family(family, tmp_path / "base")
    publish_random(base, "experts", tmp_path / "store", target_experts=True)
    plan = plan_merge(tmp_path / "store" / "experts", base)
    (tmp_path / "out").mkdir()
    fold(plan, tmp_path / "out")
    assert recompute(plan, tmp_path / "out").largest_error <= 1
    outputs = {}
    for name, output in plan.outputs.items():
        if output.experts is not None and output.experts.expert is not None:
            output = replace(output, experts=replace(output.experts, expert=(output.experts.expert + 1) % 4))
        elif output.experts is not None and output.low_rank is not None:
            output = replace(output, low_rank=replace(output.low_rank, scale=output.low_rank.scale * 1.01))
        outputs[name] = output
    with pytest.raises(IntegrityError, match="is not base \\+ adapter"):
        recompute(replace(plan, outputs=outputs), tmp_path / "out")


@pytest.mark.parametrize("family", ["llama4_text", "qwen2_moe"])
def test_onto_dequantized_values_the_experts_and_routers_keep_theirs(family: str, tmp_path: Path) -> None:
    """bitsandbytes leaves them as they are, so the adapter saw them so."""
    base = make_family(family, tmp_path / "base")
    publish_random(base, "four", tmp_path / "store", quantization="4bit", target_experts=True)
    published = open_published("four", tmp_path / "store", str(base))
    plan = plan_merge(published.folder, base, quantized_as(published.card))
    assert not any(output.quantized for output in plan.outputs.values() if output.experts is not None)
    assert not any(output.quantized for name, output in plan.outputs.items() if "router" in name)
    merge = merge_adapter("four", tmp_path / "out", base=str(base), store=tmp_path / "store", onto="dequantized")
    assert merge.certificate["probe"]["mean_kl"] < 1e-6 < merge.certificate["probe"]["adapter_effect_kl"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "llama4_text", "deepseek_v3", "falcon_h1"])
def test_the_layers_that_are_quantized_are_those_that_bitsandbytes_replaces(family: str, tmp_path: Path) -> None:
    folder = make_family(family, tmp_path / family)
    loaded = load_base(str(folder), quantization="4bit", dtype="float32").model
    replaced = {name for name, module in loaded.named_modules() if type(module).__name__ == "Linear4bit"}
    assert {layer.name for layer in quantized_layers(skeleton(folder))} == replaced


@pytest.mark.parametrize("family", EXPERTS)
def test_the_parts_on_disk_are_what_transformers_loads(family: str, tmp_path: Path) -> None:
    folder = make_family(family, tmp_path / family)
    stored, model = load_file(folder / "model.safetensors"), load(folder)
    names = DiskNames(folder, stored)
    for stack in adapted_stacks(model, choose_stacks(model)):
        parts = names.parts(stack)
        assert parts
        built = torch.full((stack.experts, stack.rows, stack.columns), float("nan"))
        for part in parts:
            tensor = stored[part.name]
            rows = slice(part.begin, part.begin + tensor.shape[-2])
            built[slice(None) if part.expert is None else part.expert, rows] = tensor
        assert torch.equal(built, model.get_parameter(stack.name))


def test_twelve_experts_are_counted_by_their_numbers_and_not_by_their_names(tmp_path: Path) -> None:
    """By its name expert 10 would come before expert 2."""
    folder = make_family("mixtral", tmp_path / "mixtral", num_local_experts=12)
    stored, model = load_file(folder / "model.safetensors"), load(folder)
    names = DiskNames(folder, stored)
    for stack in adapted_stacks(model, choose_stacks(model)):
        for part in names.parts(stack) or ():
            rows = slice(part.begin, part.begin + stored[part.name].shape[0])
            assert f".experts.{part.expert}." in part.name
            assert torch.equal(stored[part.name], model.get_parameter(stack.name)[part.expert, rows])


class Operation:
    """A step of a conversion, as transformers' own are named."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


class Transpose(Operation): ...


class Concatenate(Operation): ...


class Interleave(Operation): ...


class Converter:
    def __init__(self, *operations: Operation, patterns: tuple[str, ...] = ("a",)) -> None:
        self.operations, self.source_patterns = list(operations), list(patterns)


def parts_of(converter: Converter, tensors: dict[str, torch.Tensor]) -> list[StackPart] | None:
    """The parts of a stack of 2 experts with 6 outputs and 4 inputs that this converter makes of these tensors."""
    names = DiskNames(Path("nowhere"), tensors)
    by_pattern = {pattern: [pattern] for pattern in converter.source_patterns}
    names.__dict__["_mapped"] = ({}, {"experts.up": (converter, by_pattern)})
    return names.parts(ExpertStack("experts.up", 2, 4, 6, False))


def test_forms_that_no_tiny_family_has_are_read_by_hand() -> None:
    turned = Transpose(dim0=1, dim1=2, check_dims=True)
    assert parts_of(Converter(turned), {"a": torch.zeros(2, 4, 6)}) == [StackPart("a", None, 0, True)]
    assert parts_of(Converter(turned), {"a": torch.zeros(2, 6, 4)}) == [StackPart("a", None, 0, False)]
    joined = Converter(Concatenate(dim=1), patterns=("a", "b"))
    halves = {"a": torch.zeros(2, 2, 4), "b": torch.zeros(2, 4, 4)}
    assert parts_of(joined, halves) == [StackPart("a", None, 0), StackPart("b", None, 2)]
    assert parts_of(joined, {"a": torch.zeros(2, 2, 4), "b": torch.zeros(2, 3, 4)}) is None
    assert parts_of(Converter(Interleave(dim=1)), {"a": torch.zeros(2, 6, 4)}) is None
    assert parts_of(Converter(Concatenate(dim=2)), {"a": torch.zeros(2, 6, 4)}) is None


def test_experts_in_halves_and_transposed_are_folded_as_by_hand(tmp_path: Path) -> None:
    """Gate and up as two tensors of all experts, and a down projection stored transposed."""
    base = make_family("granitemoe", tmp_path / "base")
    publish_random(base, "experts", tmp_path / "store", target_experts=True)
    plan = plan_merge(tmp_path / "store" / "experts", base)
    down = "model.layers.0.block_sparse_moe.output_linear.weight"
    tensors = load_file(base / "model.safetensors")
    (tmp_path / "out").mkdir()
    fold(plan, tmp_path / "out")
    expected = load_file(tmp_path / "out" / "model.safetensors")[down]
    other = tmp_path / "other"
    other.mkdir()
    save_file(
        {"down": tensors[down].mT.contiguous(), "lower": tensors[down][:, 40:].contiguous()},
        other / "model.safetensors",
    )
    stored, output = read_headers(other), plan.outputs[down]
    assert output.experts is not None
    for name, part, wanted in (
        ("down", replace(output.experts, flipped=True), expected.mT),
        ("lower", replace(output.experts, begin=40), expected[:, 40:]),
    ):
        flat = replace(stored[name], shape=(wanted.shape[0] * wanted.shape[1], wanted.shape[2]))
        moved = replace(
            output, name=name, source=flat, file=flat.file, offset=flat.start, experts=part, written_shape=wanted.shape
        )
        (tmp_path / name).mkdir()
        alone = replace(plan, outputs={name: moved})
        fold(alone, tmp_path / name)
        assert torch.allclose(load_file(tmp_path / name / "model.safetensors")[name], wanted, atol=1e-6)
        assert recompute(alone, tmp_path / name).largest_error <= 1


def test_a_form_that_a_merge_cannot_write_is_said_before_the_first_step_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = make_family("mixtral", tmp_path / "base")
    monkeypatch.setattr(DiskNames, "parts", lambda *_: None)
    with caplog.at_level("WARNING"):
        publish_random(base, "experts", tmp_path / "store", target_experts=True)
    assert "neither merged nor exported merged" in caplog.text
    with pytest.raises(SettingsError, match="in a form that a merge cannot write"):
        merge_adapter("experts", tmp_path / "out", base=str(base), store=tmp_path / "store")


def test_the_certificate_counts_the_weights_of_the_experts(tmp_path: Path) -> None:
    base = make_family("deepseek_v3", tmp_path / "base")
    publish_random(base, "experts", tmp_path / "store", target_experts=True, target_modules=["o_proj"])
    plan = plan_merge(tmp_path / "store" / "experts", base)
    # two layers' o_proj of 64 x 64; one layer with 4 experts of 128 x 64 and 64 x 64
    assert plan.parameters_changed == 2 * 64 * 64 + 4 * (128 * 64 + 64 * 64)
    assert json.loads((tmp_path / "store" / "experts" / "adapter_config.json").read_text())["target_modules"] == [
        "o_proj"
    ]
