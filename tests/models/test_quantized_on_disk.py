"""Bases that are quantized on disk: their values against other implementations, and every damage by its name."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, FineGrainedFP8Config
from transformers.utils.quantization_config import Mxfp4Config

from lora_med.cli.main import run
from lora_med.errors import DependencyMissingError, DiskError, IntegrityError, LoraMedError, SettingsError
from lora_med.models.base import load_base
from lora_med.models.fingerprint import fingerprint
from lora_med.models.on_disk import dequantized_base
from lora_med.models.on_disk.dequantized_base import values_folder
from lora_med.models.on_disk.stored_quantization import NOT_READ, stored_quantization
from lora_med.models.tagging import load_tagger
from tests.models.quantized_files import (
    KINDS,
    fp8_blocks,
    make_gpt_oss,
    quantize_on_disk,
    quantize_with_bitsandbytes,
    set_quantization,
)
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module", autouse=True)
def _an_empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an earlier version dequantized must not be read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(values_folder(folder) / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_dequantized_to_the_values_it_was_packed_from(
    kind: str, original: Path, tmp_path: Path
) -> None:
    expected = quantize_on_disk(original, tmp_path / "base", kind)
    actual, kept = weights_of(tmp_path / "base"), load_file(original / "model.safetensors")
    assert len(expected) == 14
    assert set(actual) == set(kept)
    for name, tensor in kept.items():
        assert torch.equal(actual[name], expected.get(name, tensor)), name
    assert "quantization_config" not in json.loads((values_folder(tmp_path / "base") / "config.json").read_text())


def test_fp8_and_mxfp4_are_what_transformers_dequantizes(original: Path, tmp_path: Path) -> None:
    fp8 = shutil.copytree(original, tmp_path / "fp8")
    stored = {}
    for name, tensor in load_file(original / "model.safetensors").items():
        parts = fp8_blocks(tensor, 32)[0] if name.endswith("_proj.weight") else {"weight": tensor}
        stored |= {f"{name.removesuffix('weight')}{part}": value for part, value in parts.items()}
    save_file(stored, fp8 / "model.safetensors", metadata={"format": "pt"})
    set_quantization(fp8, {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]})
    make_gpt_oss(tmp_path / "mxfp4")
    options: dict[str, Any] = {
        "fp8": FineGrainedFP8Config(dequantize=True, weight_block_size=(32, 32)),
        "mxfp4": Mxfp4Config(dequantize=True),
    }
    for kind, settings in options.items():
        theirs = AutoModelForCausalLM.from_pretrained(
            tmp_path / kind, quantization_config=settings, dtype=torch.float32
        ).state_dict()
        ours = load_base(str(tmp_path / kind), quantization="none", dtype="float32").model.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), kind


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_4_bits_on_disk_are_loaded_as_they_are_or_as_the_very_values_of_bitsandbytes(
    kind: str, double: bool, family: str, tmp_path: Path
) -> None:
    make_tiny(family, tmp_path / "original")
    settings: dict[str, Any] = {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double}
    stored = quantize_with_bitsandbytes(
        tmp_path / "original", tmp_path / "base", "bfloat16", load_in_4bit=True, **settings
    )
    base = load_base(str(stored), quantization="4bit", dtype="float32", quant_type="nf4", double_quant=True)
    values = load_base(str(stored), quantization="none", dtype="float32").model
    assert (base.quantization, base.double_quant, base.quantized_now) == ("4bit", double, False)
    layers = {name: layer for name, layer in base.model.named_modules() if type(layer).__name__ == "Linear4bit"}
    assert len(layers) == {"llama": 14, "gpt2": 8}[family]
    for name, layer in layers.items():
        assert (layer.weight.quant_state.quant_type, layer.compute_dtype) == (kind, torch.float32)
        exact = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        weight = values.get_submodule(name).weight
        assert torch.equal(weight.T if family == "gpt2" else weight, exact)


@pytest.mark.parametrize("asked", ["4bit", "8bit"])
def test_8_bits_on_disk_stay_8_bits_whichever_is_asked_for(asked: str, original: Path, tmp_path: Path) -> None:
    stored = quantize_with_bitsandbytes(original, tmp_path / "base", load_in_8bit=True)
    base = load_base(str(stored), quantization=asked, dtype="float32")
    assert base.quantization == "8bit"
    assert [choice.value for choice in base.choices][-1] == "bitsandbytes 8 bit, int8, one scale a row"


def test_other_kinds_are_quantized_to_4_bits_when_asked_and_it_is_said(original: Path, tmp_path: Path) -> None:
    quantize_on_disk(original, tmp_path / "base", "gptq")
    base = load_base(str(tmp_path / "base"), quantization="4bit", dtype="float32")
    assert base.quantization == "4bit"
    assert type(base.model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert "dequantized, then quantized to 4 bits" in {choice.value for choice in base.choices}
    assert base.fingerprint == fingerprint(tmp_path / "base")


def test_the_values_are_made_once_and_again_when_the_cache_was_changed(original: Path, tmp_path: Path) -> None:
    expected = quantize_on_disk(original, tmp_path / "base", "awq")
    file = values_folder(tmp_path / "base") / "model.safetensors"
    before = file.stat().st_mtime_ns
    assert values_folder(tmp_path / "base") / "model.safetensors" == file
    assert file.stat().st_mtime_ns == before
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    name = next(iter(expected))
    assert torch.equal(weights_of(tmp_path / "base")[name], expected[name])
    assert file.stat().st_mtime_ns != before


def test_the_values_are_in_several_files_where_they_are_large(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dequantized_base, "SHARD_BYTES", 100_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    quantize_on_disk(original, tmp_path / "base", "fp8")
    folder = values_folder(tmp_path / "base")
    assert len(list(folder.glob("*.safetensors"))) > 3
    load_base(str(tmp_path / "base"), quantization="none", dtype="float32")


def test_a_tagger_keeps_its_head_out_of_the_quantized_base(original: Path, tmp_path: Path) -> None:
    stored = quantize_with_bitsandbytes(original, tmp_path / "base", load_in_4bit=True)
    tagger = load_tagger(str(stored), ["O", "B-x"], quantization="4bit", dtype="float32")
    assert tagger.model.score.weight.dtype == torch.float32
    assert not tagger.model.score.weight.any()
    assert type(tagger.model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"


@pytest.mark.parametrize("method", [*NOT_READ, "mystery", None, 4])
def test_a_method_that_is_not_read_is_refused_by_name(method: Any, original: Path, tmp_path: Path) -> None:
    base = shutil.copytree(original, tmp_path / "base")
    set_quantization(base, {"quant_method": method, "bits": 4})
    with pytest.raises(SettingsError, match=str(method)) as refused:
        load_base(str(base), quantization="none", dtype="float32")
    assert "quantization_config" in str(refused.value.where)
    assert run(["generate", "--base", str(base), "--prompt", "x"]) == 2


def test_a_package_that_is_missing_is_named_with_what_works_without_it(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = quantize_with_bitsandbytes(original, tmp_path / "base", load_in_8bit=True)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else find(name, *a)
    )
    with pytest.raises(DependencyMissingError, match="needs bitsandbytes, which is not installed") as refused:
        load_base(str(stored), quantization="8bit", dtype="float32")
    assert "model.load_in_4bit=false" in str(refused.value.fix)
    assert load_base(str(stored), quantization="none", dtype="float32").quantization == "none"


def without(part: str) -> Any:
    return lambda stored: {name: value for name, value in stored.items() if not name.endswith(part)}


def cut(part: str) -> Any:
    return lambda stored: {
        name: value[:-1].contiguous() if name.endswith(f"0.self_attn.q_proj.{part}") else value
        for name, value in stored.items()
    }


@pytest.mark.parametrize(
    ("kind", "damage", "named"),
    [
        ("gptq", without("scales"), "part 'model.layers.0.*scales' is absent"),
        ("gptq", without("qzeros"), "qzeros' is absent"),
        ("gptq", cut("qweight"), "0.self_attn.q_proj.weight"),
        ("gptq", cut("qzeros"), "0.self_attn.q_proj.weight"),
        ("gptq", cut("g_idx"), "0.self_attn.q_proj.weight': g_idx"),
        ("gptq", cut("scales"), "0.self_attn.q_proj.weight"),
        ("awq", cut("scales"), "0.self_attn.q_proj.weight': scales"),
        ("awq", cut("qweight"), "0.self_attn.q_proj.weight"),
        ("fp8", without("weight_scale_inv"), "is F8_E4M3 and has no scale"),
        ("fp8", cut("weight_scale_inv"), "0.self_attn.q_proj.weight': scale"),
        ("compressed_int8", without("weight_scale"), "is I8 and has no scale"),
        ("compressed_int8", cut("weight_scale"), "0.self_attn.q_proj.weight': scale"),
        ("compressed_int4", without("weight_shape"), "weight_shape' is absent"),
        ("compressed_int4", cut("weight_packed"), "0.self_attn.q_proj.weight': weight_shape"),
        ("compressed_int4", cut("weight_scale"), "0.self_attn.q_proj.weight': scale"),
        ("compressed_int4_zeros", cut("weight_zero_point"), "0.self_attn.q_proj.weight"),
        ("compressed_nvfp4", cut("weight_packed"), "0.self_attn.q_proj.weight"),
        ("compressed_nvfp4", without("weight_scale"), "weight_scale' is absent"),
    ],
)
def test_damaged_parts_are_named(kind: str, damage: Any, named: str, original: Path, tmp_path: Path) -> None:
    quantize_on_disk(original, tmp_path / "base", kind)
    file = tmp_path / "base/model.safetensors"
    save_file(damage(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=named):
        load_base(str(tmp_path / "base"), quantization="none", dtype="float32")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gptq", {"quant_method": "gptq", "bits": "four"}),
        ("gptq", {"quant_method": "gptq", "bits": 5}),
        ("gptq", {"quant_method": "gptq", "bits": 4, "group_size": None}),
        ("gptq", {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}),
        ("gptq", {"quant_method": "gptq", "bits": 8, "group_size": 32}),
        ("awq", {"quant_method": "awq", "bits": 4, "version": "gemv"}),
        ("awq", {"quant_method": "awq", "bits": 4, "group_size": 7}),
        ("awq", {"quant_method": "awq", "bits": 4, "group_size": 10**12}),
        ("awq", {"quant_method": "awq", "bits": 4, "group_size": 10**6}),
        ("gptq", {"quant_method": "gptq", "bits": 4, "group_size": 10**12}),
        ("fp8", {"quant_method": "fp8", "weight_block_size": [0, 0]}),
        ("fp8", {"quant_method": "fp8", "weight_block_size": 128}),
        ("fp8", {"quant_method": "gptq", "bits": 4}),
        ("compressed_int4", {"quant_method": "compressed-tensors"}),
        ("compressed_int4", {"quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": {}}),
        ("compressed_int4", {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": 3}}}),
        ("compressed_int4", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
        ("compressed_int4", {"quant_method": "bitsandbytes"}),
        ("compressed_int4", {"load_in_8bit": True}),
        ("compressed_int4", "yes"),
        ("compressed_int4", ["gptq"]),
        ("awq", {"quant_method": "mxfp4"}),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_refused(
    kind: str, settings: Any, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantize_on_disk(original, tmp_path / "base", kind)
    set_quantization(tmp_path / "base", settings)
    with pytest.raises(LoraMedError) as refused:
        load_base(str(tmp_path / "base"), quantization="none", dtype="float32")
    assert refused.value.exit_code in (2, 76)
    assert run(["generate", "--base", str(tmp_path / "base"), "--prompt", "x"]) == refused.value.exit_code
    assert "bug in lora_med" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [{"nested_blocksize": 0}, {"nested_blocksize": 1}, {"blocksize": 0}, {"blocksize": 10**15}, {"shape": [10**9, 64]}],
)
def test_a_damaged_state_of_bitsandbytes_is_refused_with_the_weight(
    change: dict[str, Any], original: Path, tmp_path: Path
) -> None:
    stored = quantize_with_bitsandbytes(original, tmp_path / "base", load_in_4bit=True, bnb_4bit_use_double_quant=True)
    file = stored / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__fp4"
    state = json.loads(bytes(tensors[name].tolist()))
    tensors[name] = torch.tensor(list(json.dumps({**state, **change}).encode()), dtype=torch.uint8)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=r"0\.mlp\.up_proj\.weight"):
        load_base(str(stored), quantization="none", dtype="float32")


def test_full_weights_whose_config_says_quantized_are_refused_with_the_line_to_delete(
    original: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(original, tmp_path / "base")
    set_quantization(base, dict(KINDS["gptq"][0]))
    with pytest.raises(IntegrityError, match="no tensor is quantized so") as refused:
        load_base(str(base), quantization="none", dtype="float32")
    assert "delete quantization_config" in str(refused.value.fix)
    set_quantization(base, None)
    load_base(str(base), quantization="none", dtype="float32")


def test_a_scale_that_is_not_a_number_is_refused(original: Path, tmp_path: Path) -> None:
    quantize_on_disk(original, tmp_path / "base", "compressed_fp8")
    file = tmp_path / "base/model.safetensors"
    stored = load_file(file)
    stored["model.layers.1.mlp.up_proj.weight_scale"][2] = float("nan")
    save_file(stored, file, metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=r"1.mlp.up_proj.weight' has values that are not finite"):
        load_base(str(tmp_path / "base"), quantization="none", dtype="float32")


def test_a_full_disk_is_refused_before_anything_is_written(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize_on_disk(original, tmp_path / "base", "gptq")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DiskError, match="dequantized base needs"):
        load_base(str(tmp_path / "base"), quantization="none", dtype="float32")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_what_is_stored_is_said_in_words(original: Path, tmp_path: Path) -> None:
    said = {}
    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        shutil.copyfile(original / "config.json", folder / "config.json")
        set_quantization(folder, dict(KINDS[kind][0]))
        said[kind] = str(stored_quantization(folder))
    assert said["gptq_3bit"] == "gptq 3 bit, groups of 32"
    assert said["fp8"] == "fp8 8 bit, e4m3, blocks of 48 x 48"
    assert said["compressed_nvfp4"] == "compressed-tensors 4 bit, floating point, groups of 16"
    assert stored_quantization(original) is None
