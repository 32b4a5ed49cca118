"""Adapters on bases that are quantized on disk: trained, published, attached, merged, and onto the proved original."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lora_med
from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.store.card import read_card
from lora_med.cli.main import run
from lora_med.config.parse import parse
from lora_med.errors import BaseMismatchError, IntegrityError, SettingsError
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import load_base
from lora_med.models.fingerprint import fingerprint
from tests.evaluation.published import publish_random
from tests.models.quantized_files import KINDS, make_gpt_oss, quantize_on_disk, quantize_with_bitsandbytes
from tests.tiny import make_tiny

ROWS = [{"prompt": f"What treats illness {n}?", "completion": f" Remedy {n} does."} for n in range(12)]
MORE = [{"prompt": f"What causes illness {n}?", "completion": f" Agent {n} does."} for n in range(20, 24)]
IDS = torch.tensor([[1, 70, 80, 90, 33, 44, 120, 9]])
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
ROUNDED = sorted(set(KINDS) - {"gptq_v2_by_activation"})


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original, and it as quantized in each format; read only."""
    folder = tmp_path_factory.mktemp("bases")
    original = make_tiny("llama", folder / "original")
    for kind in KINDS:
        quantize_on_disk(original, folder / kind, kind)
    quantize_with_bitsandbytes(original, folder / "nf4", **NF4)
    quantize_with_bitsandbytes(original, folder / "fp4", load_in_4bit=True, bnb_4bit_quant_type="fp4")
    quantize_with_bitsandbytes(original, folder / "int8", load_in_8bit=True)
    make_gpt_oss(folder / "mxfp4")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _an_empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an earlier version dequantized must not be read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(
    ("kind", "setting", "in_memory", "on_disk"),
    [
        ("nf4", "load_in_4bit=true", "4bit", "bitsandbytes 4 bit, nf4, one scale a block, double quantization"),
        ("nf4", "load_in_4bit=false", "none", "bitsandbytes 4 bit, nf4, one scale a block, double quantization"),
        ("fp4", "load_in_4bit=true", "4bit", "bitsandbytes 4 bit, fp4, one scale a block"),
        ("int8", "load_in_4bit=true", "8bit", "bitsandbytes 8 bit, int8, one scale a row"),
        ("gptq", "load_in_4bit=false", "none", "gptq 4 bit, groups of 32"),
        ("gptq", "load_in_4bit=true", "4bit", "gptq 4 bit, groups of 32"),
        ("awq", "load_in_4bit=false", "none", "awq 4 bit, groups of 32"),
        ("fp8", "load_in_4bit=false", "none", "fp8 8 bit, e4m3, blocks of 48 x 48"),
        ("mxfp4", "load_in_4bit=false", "none", "mxfp4 4 bit, groups of 32"),
        ("compressed_int4", "load_in_4bit=false", "none", "compressed-tensors 4 bit, integers, groups of 32"),
    ],
)
def test_an_adapter_is_trained_attached_and_merged_onto_the_dequantized_values(
    bases: Path, tmp_path: Path, kind: str, setting: str, in_memory: str, on_disk: str
) -> None:
    settings = parse(
        None,
        [
            f"model.base={bases / kind}",
            f"model.{setting}",
            "model.dtype=float32",
            "data.source=custom",
            "adapter.access=open",
            f"train.output_dir={tmp_path / 'run'}",
            "train.max_steps=2",
            "train.learning_rate=0.05",
            "train.per_device_train_batch_size=2",
            "lora.r=4",
            "adapter.name=mine",
            f"adapter.store={tmp_path / 'store'}",
        ],
    )
    lora_med.train(settings, train=ROWS, validation=MORE)
    card = read_card(tmp_path / "store/mine")
    assert (card.base.quantization, card.base.origin["quantization"]) == (in_memory, on_disk)
    assert card.base.fingerprint == fingerprint(bases / kind)
    certificate = merge_adapter("mine", tmp_path / "out", base=str(bases / kind), store=tmp_path / "store").certificate
    assert (certificate["onto"], certificate["base"]["quantized_on_disk"]) == ("on_disk", on_disk)
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    merged = logits(load_base(str(tmp_path / "out"), quantization="none", dtype="float32").model)
    exact = kind in ("nf4", "fp4")  # bitsandbytes' 8-bit layers round their inputs too, and NF4 of GPTQ rounds twice
    base = load_base(str(bases / kind), quantization=in_memory if exact else "none", dtype="float32")
    bare = logits(base.model)
    adapted = logits(attach(base, "mine", tmp_path / "store"))
    assert (adapted - merged).abs().max() < 1e-4 < (adapted - bare).abs().max()


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8", *ROUNDED])
def test_the_original_is_taken_after_proving_that_the_quantized_base_is_its_rounding(
    bases: Path, tmp_path: Path, kind: str
) -> None:
    publish_random(bases / kind, "mine", tmp_path / "store")
    load_base(str(bases / kind), quantization="none", dtype="float32")  # it is known to this machine by its fingerprint
    original = bases / "original"
    certificate = merge_adapter("mine", tmp_path / "out", base=str(original), store=tmp_path / "store").certificate
    rounding = certificate["base"]["rounding"]
    assert certificate["onto"] == "original"
    assert certificate["base"]["fingerprint"]["weights"] == fingerprint(original).weights
    assert rounding["base"]["weights"] == fingerprint(bases / kind).weights
    assert (rounding["quantized"], rounding["equal"]) == (14, 7)
    assert 0.3 < rounding["largest_error"] <= 1.01
    assert certificate["probe"]["mean_kl"] < 1e-6


def test_a_base_that_is_not_the_rounding_of_another_is_refused_with_the_figures(bases: Path, tmp_path: Path) -> None:
    make_tiny("llama", tmp_path / "other", seed=5)
    publish_random(bases / "gptq", "mine", tmp_path / "store")
    with pytest.raises(IntegrityError, match=r"is not the rounding.* of 73,728 weights differ by more than one step"):
        merge_adapter("mine", tmp_path / "out", base=str(tmp_path / "other"), store=tmp_path / "store")
    assert not (tmp_path / "out").exists()


def test_one_weight_two_steps_away_is_refused_and_the_advice_holds(bases: Path, tmp_path: Path) -> None:
    """The message says to leave --base out, and that merges."""
    moved = shutil.copytree(bases / "original", tmp_path / "moved")
    weights = load_file(moved / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] += 2 * float(KINDS_STEP["compressed_int8"](weights))
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    publish_random(bases / "compressed_int8", "mine", tmp_path / "store")
    with pytest.raises(IntegrityError, match=r"1 of 73,728 weights .*up_proj") as refused:
        merge_adapter("mine", tmp_path / "out", base=str(moved), store=tmp_path / "store")
    assert "leave --base out" in str(refused.value.fix)
    shutil.copytree(bases / "compressed_int8", tmp_path / "here")
    merge_adapter("mine", tmp_path / "out", base=str(tmp_path / "here"), store=tmp_path / "store")


KINDS_STEP = {"compressed_int8": lambda w: w["model.layers.1.mlp.up_proj.weight"][3].abs().max() / 127}


def test_a_tensor_that_is_not_quantized_must_be_the_originals(bases: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(bases / "original", tmp_path / "changed")
    weights = load_file(changed / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    publish_random(bases / "awq", "mine", tmp_path / "store")
    with pytest.raises(IntegrityError, match=r"'model.norm.weight', which is not quantized, differs"):
        merge_adapter("mine", tmp_path / "out", base=str(changed), store=tmp_path / "store")


def test_an_original_with_another_tokenizer_is_refused(bases: Path, tmp_path: Path) -> None:
    make_tiny("llama", tmp_path / "other", bos=False)
    publish_random(bases / "awq", "mine", tmp_path / "store")
    with pytest.raises(BaseMismatchError, match="tokenizer"):
        merge_adapter("mine", tmp_path / "out", base=str(tmp_path / "other"), store=tmp_path / "store")


def test_the_original_and_the_dequantized_values_together_are_refused(bases: Path, tmp_path: Path) -> None:
    publish_random(bases / "nf4", "mine", tmp_path / "store", quantization="4bit")
    with pytest.raises(SettingsError, match="--base names the original"):
        merge_adapter(
            "mine", tmp_path / "out", base=str(bases / "original"), store=tmp_path / "store", onto="dequantized"
        )


def test_a_quantized_base_that_is_gone_is_named_and_the_advice_finds_it(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_random(bases / "fp8", "mine", tmp_path / "store")
    moved = shutil.copytree(bases / "fp8", tmp_path / "moved")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # another machine, which never saw the base
    merge = ["merge", "mine", "--store", str(tmp_path / "store"), "--base", str(bases / "original")]
    assert run([*merge, "--out", str(tmp_path / "out")]) == 66
    assert "lora-med adapters verify mine --base" in capsys.readouterr().err
    assert run(["adapters", "verify", "mine", "--base", str(moved), "--store", str(tmp_path / "store")]) == 0
    assert run([*merge, "--out", str(tmp_path / "out")]) == 0


def test_dequantized_is_what_the_base_on_disk_stands_for(bases: Path, tmp_path: Path) -> None:
    """--onto dequantized of a base that is quantized on disk, and was trained on as it is, adds nothing."""
    publish_random(bases / "nf4", "mine", tmp_path / "store", quantization="4bit")
    options: dict[str, Any] = {"base": str(bases / "nf4"), "store": tmp_path / "store"}
    merge_adapter("mine", tmp_path / "first", **options)
    merge_adapter("mine", tmp_path / "second", onto="dequantized", **options)
    assert fingerprint(tmp_path / "first") == fingerprint(tmp_path / "second")


def test_values_quantized_again_are_merged_onto_when_asked(bases: Path, tmp_path: Path) -> None:
    """A GPTQ base that was trained on in NF4: both are offered, and the certificate names both."""
    publish_random(bases / "gptq", "mine", tmp_path / "store", quantization="4bit")
    options: dict[str, Any] = {"base": str(bases / "gptq"), "store": tmp_path / "store"}
    exact = merge_adapter("mine", tmp_path / "first", **options).certificate
    again = merge_adapter("mine", tmp_path / "second", onto="dequantized", **options).certificate
    assert (exact["onto"], again["onto"]) == ("on_disk", "dequantized")
    assert exact["merged"]["fingerprint"] != again["merged"]["fingerprint"]
    assert {name["base"]["quantized_on_disk"] for name in (exact, again)} == {"gptq 4 bit, groups of 32"}


def test_what_an_initialization_is_told_to_set_works_on_a_base_in_4_bits_on_disk(bases: Path, tmp_path: Path) -> None:
    """The fix of each refusal is followed: full precision for PiSSA, the default start for LoftQ."""
    stored = bases / "nf4"
    with pytest.raises(SettingsError, match="pissa") as pissa:
        publish_random(stored, "one", tmp_path / "store", quantization="4bit", init_lora_weights="pissa")
    assert pissa.value.fix == "model.load_in_4bit=false model.load_in_8bit=false"
    publish_random(stored, "one", tmp_path / "store", quantization="none", init_lora_weights="pissa")
    with pytest.raises(SettingsError, match="4-bit on disk") as loftq:
        publish_random(stored, "two", tmp_path / "store", quantization="4bit", init_lora_weights="loftq")
    assert loftq.value.fix == "init_lora_weights: default"
    with pytest.raises(SettingsError, match="quantized so on disk") as dora:
        publish_random(bases / "int8", "two", tmp_path / "store", quantization="4bit", use_dora=True)
    assert dora.value.fix == pissa.value.fix
    publish_random(bases / "int8", "two", tmp_path / "store", quantization="none", use_dora=True)
    publish_random(bases / "gptq", "three", tmp_path / "store", quantization="4bit", init_lora_weights="loftq")


def test_the_plan_counts_the_weights_as_they_will_be_in_memory(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where nothing is dequantized yet

    def plan(kind: str, *settings: str) -> dict[str, Any]:
        options = ["data.source=custom", "adapter.access=open", "adapter.name=mine", "model.dtype=float32"]
        command = ["plan", "--json", "--no-time", "--no-read-data", f"model.base={bases / kind}", *options, *settings]
        assert run(command) == 0
        return json.loads(capsys.readouterr().out)

    full = plan("original", "model.load_in_4bit=false")["as_set"]["bytes"]["weights"]
    eight = plan("original", "model.load_in_4bit=false", "model.load_in_8bit=true")["as_set"]["bytes"]["weights"]
    four = plan("original")["as_set"]["bytes"]["weights"]
    for kind, settings, expected, cache_bytes in (
        ("gptq", ["model.load_in_4bit=false"], full, full),
        ("gptq", [], four, full),
        ("nf4", [], four, 0),
        ("nf4", ["model.load_in_4bit=false"], full, full),
        ("int8", [], eight, 0),
    ):
        report = plan(kind, *settings)
        assert report["as_set"]["bytes"]["weights"] == expected, kind
        assert report["base_on_disk"]["cache_bytes"] == cache_bytes, kind
