"""The arithmetic around GGUF by hand: scales of an adapter, agreement of log-probabilities, limits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_med.adapters.tensors.method import Method
from lora_med.errors import IntegrityError, SettingsError
from lora_med.export.gguf.adapter_folder import correction, write_for_converter
from lora_med.export.gguf.gguf_check import Agreement, agreement, check_exact, check_rounded, make_reference
from lora_med.export.gguf.llama_server import Scored
from lora_med.export.gguf.number_types import check_formats, write_as
from lora_med.files import read_json, write_json

LAYER = "base_model.model.h.0.attn.c_attn"


def test_corrections_by_hand() -> None:
    plain = Method(r=4, lora_alpha=8, target_modules=("q_proj",))
    assert correction(plain, "l.q_proj") == 1.0
    # llama.cpp: 8 / 4 = 2; rsLoRA means 8 / sqrt(4) = 4.
    assert correction(Method(r=4, lora_alpha=8, target_modules=("q_proj",), use_rslora=True), "l.q_proj") == 2.0
    # llama.cpp: 8 / 2 = 4 at rank 2; the pattern means 3 / 2 = 1.5.
    patterns = Method(4, 8, ("q_proj",), rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 3.0})
    assert correction(patterns, "l.q_proj") == pytest.approx(1.5 / 4)


def write_adapter(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    down, up = torch.arange(8.0).reshape(2, 4), torch.arange(6.0).reshape(3, 2)
    folder.mkdir()
    save_file({f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", {"r": 2, "lora_alpha": 4, "use_rslora": False})
    return down, up


def read_adapter(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return load_file(folder / "adapter_model.safetensors"), read_json(folder / "adapter_config.json")


@pytest.mark.parametrize(("model_type", "turned"), [("llama", False), ("gpt2", True)])
def test_gpt2_s_layers_are_turned_and_no_others(model_type: str, turned: bool, tmp_path: Path) -> None:
    down, up = write_adapter(tmp_path / "adapter")
    (tmp_path / "base").mkdir()
    write_json(tmp_path / "base/config.json", {"model_type": model_type})
    method = Method(r=2, lora_alpha=4, target_modules=("c_attn",))
    found = load_file(
        write_for_converter(*read_adapter(tmp_path / "adapter"), method, tmp_path / "base", tmp_path / "out")
        / "adapter_model.safetensors"
    )
    product = found[f"{LAYER}.lora_B.weight"] @ found[f"{LAYER}.lora_A.weight"]
    assert torch.equal(product.T if turned else product, up @ down)


def test_dora_alone_is_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter")
    method = Method(r=2, lora_alpha=4, target_modules=("c_attn",), use_dora=True)
    with pytest.raises(SettingsError, match="DoRA"):
        write_for_converter(*read_adapter(tmp_path / "adapter"), method, tmp_path, tmp_path / "out")


def test_agreement_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]))
    reference = make_reference([[0, 1, 2]], [logits])
    assert reference.nll == pytest.approx((math.log(4) + math.log(10)) / 2)
    theirs = Scored(
        [math.log(4) + 0.1, math.log(10) - 0.3], [{0: math.log(0.5) + 0.02}, {0: math.log(0.1), 1: math.log(0.1) - 1}]
    )
    found = agreement([theirs], reference)
    assert found.positions == 2
    assert found.largest_difference == pytest.approx(math.log(8) + 1, abs=1e-6)  # token 1: 0.8 with us, 0.1 / e there
    assert found.mean_difference == pytest.approx(0.2, abs=1e-6)
    assert found.nll_change == pytest.approx(-0.1, abs=1e-6)
    assert found.same_first_choice == 0.5


def test_a_token_outside_the_vocabulary_and_nan_are_refused() -> None:
    reference = make_reference([[0, 1]], [torch.zeros(2, 3)])
    with pytest.raises(IntegrityError, match="token 3"):
        agreement([Scored([1.0], [{3: -1.0}])], reference)
    with pytest.raises(IntegrityError, match="not finite"):
        agreement([Scored([math.nan], [{0: -1.0}])], reference)


@pytest.mark.parametrize(("difference", "kept"), [(0.0099, True), (0.0101, False)])
def test_a_hundredth_of_a_nat_is_the_limit(difference: float, kept: bool) -> None:
    found = Agreement(1, difference, 0.0, 1.0, 4.0, 4.0)
    if kept:
        check_exact("the model", found)
    else:
        with pytest.raises(IntegrityError, match="does not answer as the model") as caught:
            check_exact("the model", found)
        assert caught.value.exit_code == 76


def test_a_rounded_file_may_lose_what_its_format_explains() -> None:
    check_rounded("q4_0", Agreement(1, 9.0, 0.4, 0.5, 4.4, 4.0))
    with pytest.raises(IntegrityError, match=r"q8_0 changes the mean nll by \+0\.4000"):
        check_rounded("q8_0", Agreement(1, 9.0, 0.4, 0.5, 4.4, 4.0))


def test_the_k_types_are_referred_to_llama_cpp() -> None:
    with pytest.raises(SettingsError, match="q4_k_m") as caught:
        check_formats(("q8_0", "q4_k_m"))
    assert "llama-quantize" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("blk.0.attn_q.weight", "Q8_0"),
        ("blk.0.ssm_conv1d.weight", "F32"),
        ("blk.0.shortconv.conv.weight", "F32"),
        ("blk.0.ssm_a", "F32"),
        ("blk.0.ffn_gate_inp.weight", "F32"),
    ],
)
def test_what_llama_cpp_computes_in_float32_alone_is_never_rounded(name: str, kind: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", arch="llama")
    writer.add_tensor(name, numpy.ones((64, 64), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_as(tmp_path / "one.gguf", tmp_path / "out.gguf", "q8_0")
    assert gguf.GGUFReader(tmp_path / "out.gguf").tensors[0].tensor_type.name == kind
