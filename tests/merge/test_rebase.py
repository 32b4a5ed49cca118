"""Adapters that bring tensors of their base: adopted onto that base, written anew, they say what PEFT's model said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_med.adapters.foreign.import_peft import Origin, adopt
from lora_med.adapters.runtime.attach import attach
from lora_med.cli.main import run
from lora_med.errors import IntegrityError, OutputError, SettingsError
from lora_med.files import read_json
from lora_med.merge.merge import merge_adapter
from lora_med.merge.rebase import adopt_with_base
from lora_med.models.base import load_base
from tests.merge.test_variants import logits, make_variant

OPEN = Origin(access="open")


@pytest.mark.parametrize("kind", ["resized", "resized, tied", "all biases", "adapted biases"])
def test_attached_and_merged_it_says_what_pefts_model_said(kind: str, tmp_path: Path) -> None:
    base, adapter, expected = make_variant(kind, tmp_path)
    with pytest.raises(SettingsError, match=r"brings its own .*\n?.*") as refusal:
        adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store", origin=OPEN)
    assert "--new-base" in str(refusal.value.fix)
    adopted = adopt_with_base(
        adapter, tmp_path / "new", base=str(base), name="theirs", store=tmp_path / "store", origin=OPEN
    )
    loaded = load_base(str(tmp_path / "new"), quantization="none", dtype="float32")
    assert (logits(attach(loaded, "theirs", tmp_path / "store")) - expected).abs().max() < 2e-5
    merge_adapter("theirs", tmp_path / "out", store=tmp_path / "store", base=str(tmp_path / "new"))
    assert (logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")) - expected).abs().max() < 2e-5
    assert adopted.card.base.fingerprint == loaded.fingerprint
    certificate = read_json(tmp_path / "new/merge_certificate.json")
    assert certificate["onto"] == "whole" and certificate["verified_by"] == ["tensors"]
    assert "is not merged in" in (tmp_path / "new/README.md").read_text()


def test_the_tokenizer_beside_the_adapter_comes_with_it(tmp_path: Path) -> None:
    base, adapter, _ = make_variant("resized", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<|note|>"])
    tokenizer.save_pretrained(adapter)
    store = ["--store", str(tmp_path / "store")]
    asked = ["adapters", "adopt", str(adapter), "--base", str(base), "--name", "noted", *store]
    assert run([*asked, "--new-base", str(tmp_path / "new")]) == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "new")("<|note|>", add_special_tokens=False)["input_ids"] == [261]
    assert (tmp_path / "new/model.safetensors").stat().st_mode & 0o077 == 0  # what it learned from is not known


def test_an_adapter_that_brings_nothing_needs_no_base_of_its_own(tmp_path: Path) -> None:
    base, adapter, _ = make_variant("head", tmp_path)
    with pytest.raises(SettingsError, match="brings no tensor"):
        adopt_with_base(adapter, tmp_path / "new", base=str(base), name="plain", store=tmp_path / "store")
    assert not (tmp_path / "new").exists()


def test_a_refused_adapter_leaves_no_base_behind(tmp_path: Path) -> None:
    base, adapter, _ = make_variant("resized", tmp_path)
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    broken = next(name for name in tensors if "lora_A" in name)
    save_file({**tensors, broken: torch.full_like(tensors[broken], torch.nan)}, adapter / "adapter_model.safetensors")
    with pytest.raises(IntegrityError, match="NaN"):
        adopt_with_base(adapter, tmp_path / "new", base=str(base), name="torn", store=tmp_path / "store")
    assert not (tmp_path / "new").exists() and not (tmp_path / "store/torn").exists()


def test_a_folder_that_is_taken_is_refused(tmp_path: Path) -> None:
    base, adapter, _ = make_variant("resized", tmp_path)
    shutil.copytree(base, tmp_path / "new")
    with pytest.raises(OutputError):
        adopt_with_base(adapter, tmp_path / "new", base=str(base), name="x", store=tmp_path / "store", origin=OPEN)
    assert json.loads((tmp_path / "new/config.json").read_text())["vocab_size"] == 264
