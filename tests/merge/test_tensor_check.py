"""The proof that needs no model: it passes what is right to the last bit, and finds one wrong bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_med.errors import IntegrityError
from lora_med.merge.fold.fold import fold
from lora_med.merge.fold.merge_plan import Plan, plan_merge
from lora_med.merge.proof.tensor_check import recompute
from tests.merge.test_fold import in_bfloat16, make_adapter
from tests.tiny import make_tiny


def folded(folder: Path, *, dtype: str | None = None, family: str = "llama", **options: Any) -> tuple[Plan, Path]:
    base = in_bfloat16(make_tiny(family, folder / "fp32"), folder / "base")
    plan = plan_merge(make_adapter(base, folder / "adapter", **options), base)
    (folder / "out").mkdir()
    fold(plan, folder / "out", dtype=dtype)
    return plan, folder / "out"


@pytest.mark.parametrize(("dtype", "name"), [(None, None), ("float32", "F32"), ("float16", "F16")])
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"use_dora": True}),
        ("gpt2", {"use_dora": True, "fan_in_fan_out": True}),
        ("llama", {"target_modules": ["q_proj"], "use_rslora": True}),
    ],
)
def test_a_right_merge_is_within_one_rounding(
    dtype: str | None, name: str | None, family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    plan, out = folded(tmp_path, dtype=dtype, family=family, **options)
    proof = recompute(plan, out, dtype=name)
    assert (0.05 if dtype == "float32" else 0.5) < proof.largest_error <= 1
    assert proof.tensors == len(plan.outputs)
    assert proof.rows_recomputed >= 16 * sum(one.low_rank is not None for one in plan.outputs.values()) > 0
    if dtype is None:
        assert proof.copied == proof.tensors - len(plan.changes)


def test_weights_that_rounding_left_alone_are_counted(tmp_path: Path) -> None:
    plan, out = folded(tmp_path, target_modules=["q_proj"])
    tensors, before = load_file(out / "model.safetensors"), load_file(tmp_path / "base/model.safetensors")
    names = [name for name in tensors if "q_proj" in name]
    same = sum(int((tensors[name] == before[name]).sum()) for name in names)
    whole = sum(tensors[name].numel() for name in names)
    assert recompute(plan, out).unchanged == pytest.approx(same / whole, abs=1e-6)


def _next(tensor: torch.Tensor) -> None:
    tensor.view(torch.int16)[:, 7] ^= 3


DAMAGE: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "a column off by a few roundings": (lambda t: _next(t["model.layers.1.mlp.up_proj.weight"]), "roundings"),
    "a bit of a copied tensor": (
        lambda t: t["model.norm.weight"].view(torch.int16)[5:6].bitwise_xor_(1),
        "other bytes",
    ),
    "not a number": (lambda t: t["model.layers.0.mlp.up_proj.weight"][3:4, 3:4].fill_(float("nan")), "not finite"),
    "a tensor less": (lambda t: t.pop("model.norm.weight"), "lack or add 1"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_wrong_file_is_found(kind: str, tmp_path: Path) -> None:
    plan, out = folded(tmp_path)
    change, said = DAMAGE[kind]
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=said):
        recompute(plan, out)
