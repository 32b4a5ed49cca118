"""Merging onto what quantizing left: the same bits as in the loaded model, and figures by which to choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from safetensors.torch import load_file

from lora_med.errors import DataError, InputMissingError, SettingsError
from lora_med.merge.fold import row_blocks as blocks
from lora_med.merge.fold.fold import fold
from lora_med.merge.fold.merge_plan import Quantized, plan_merge
from lora_med.merge.merge import merge_adapter
from lora_med.merge.proof.tensor_check import recompute
from lora_med.models.base import load_base
from tests.evaluation.published import publish_random
from tests.merge.test_fold import make_adapter
from tests.tiny import make_tiny

TARGETS: dict[str, dict[str, Any]] = {
    "llama": {"target_modules": ["q_proj"]},
    "gemma": {"target_modules": ["q_proj"]},
    "gpt2": {"target_modules": ["c_attn"], "fan_in_fan_out": True},
}


def loaded_values(module: Any) -> torch.Tensor:
    """What a quantized layer of bitsandbytes stands for, (out, in)."""
    if type(module).__name__ == "Linear4bit":
        return dequantize_4bit(module.weight.data, module.weight.quant_state).float()
    return int8_vectorwise_dequant(module.weight.data, module.weight.SCB.float())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("bits", "double", "kind"), [(4, True, "nf4"), (4, False, "fp4"), (8, True, "nf4")])
@pytest.mark.parametrize("family", TARGETS)
def test_layers_without_an_update_are_bit_identical_to_the_loaded_models(
    family: str, bits: int, double: bool, kind: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_NUMBERS", 9000)
    monkeypatch.setattr(blocks, "PIECE_NUMBERS", 3000)  # several pieces a tensor
    base = make_tiny(family, tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **TARGETS[family])
    plan = plan_merge(adapter, base, Quantized(bits, kind, double, dtype))
    (tmp_path / "out").mkdir()
    merged = load_file(next(iter(fold(plan, tmp_path / "out"))))
    assert recompute(plan, tmp_path / "out").largest_error <= 1
    model = load_base(str(base), quantization=f"{bits}bit", quant_type=kind, double_quant=double, dtype=dtype).model
    compared = 0
    for name, module in model.named_modules():
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt") and not name.endswith(("q_proj", "c_attn")):
            found = merged[f"{name}.weight"]
            assert torch.equal(found.T if family == "gpt2" else found, loaded_values(module)), name
            compared += 1
    assert compared >= 6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dequantized")
    make_tiny("llama", folder / "base")
    publish_random(folder / "base", "four", folder / "store", quantization="4bit")
    publish_random(folder / "base", "whole", folder / "store")
    (folder / "texts.txt").write_text("Fever and cough for three days.\n\nNo rash was seen, and no pain.\n")
    return folder


def test_the_certificate_reports_nll_under_all_three(home: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"base": str(home / "base"), "store": home / "store", "heldout": home / "texts.txt"}
    scores = {
        onto: merge_adapter("four", tmp_path / onto, onto=onto, **common).certificate["heldout"]
        for onto in ("original", "dequantized")
    }
    for onto, nearest in (("original", "original base + adapter"), ("dequantized", "base in 4bit + adapter")):
        found = scores[onto]["nll"]
        assert set(found) == {"original base + adapter", "base in 4bit + adapter", "merged"}
        assert found["merged"] == pytest.approx(found[nearest], abs=1e-4)
        assert scores[onto]["file"] == "texts.txt" and scores[onto]["texts"] == 2
    both = scores["original"]["nll"]
    assert both["original base + adapter"] != pytest.approx(both["base in 4bit + adapter"], abs=1e-4)


def test_an_adapter_of_a_whole_base_has_nothing_dequantized_to_merge_onto(home: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing dequantized"):
        merge_adapter("whole", tmp_path / "out", base=str(home / "base"), store=home / "store", onto="dequantized")


@pytest.mark.parametrize(("content", "error"), [(None, InputMissingError), (b" \n", DataError), (b"\xff", DataError)])
def test_held_out_texts_that_cannot_be_read_are_refused(
    content: bytes | None, error: type[Exception], home: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(error):
        merge_adapter(
            "whole", tmp_path / "out", base=str(home / "base"), store=home / "store", heldout=tmp_path / "t.txt"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("verify", "proofs"),
    [("auto", ["probes", "tensors"]), ("probes", ["probes"]), ("tensors", ["tensors"]), ("none", [])],
)
def test_the_requested_proofs_are_the_proofs_made(verify: str, proofs: list[str], home: Path, tmp_path: Path) -> None:
    merge = merge_adapter("whole", tmp_path / "out", base=str(home / "base"), store=home / "store", verify=verify)
    assert merge.certificate["verified_by"] == proofs
    assert [name for name in ("probe", "tensors") if merge.certificate[name] is not None] == [
        {"probes": "probe"}.get(name, name) for name in proofs
    ]
    assert ("none was requested" in (tmp_path / "out/README.md").read_text()) == (verify == "none")
