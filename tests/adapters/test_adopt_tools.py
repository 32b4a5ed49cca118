"""Adapters in the layouts that other tools save: adopted, with the logits of the model that was trained."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_med.adapters.foreign.import_peft import Origin, adopt
from lora_med.adapters.runtime.attach import attach
from lora_med.errors import IntegrityError, LoraMedError, SettingsError
from lora_med.models.base import load_base
from tests.merge.test_variants import logits

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def trained(base: Path, folder: Path, *, task: str | None = "CAUSAL_LM", dora: bool = False) -> torch.Tensor:
    """Save an adapter with PEFT, its weights random; returns the logits of the model."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "use_dora": dora}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(model, LoraConfig(task_type=task, **settings))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        tuned.save_pretrained(str(folder))
    return logits(tuned)


def adopted_logits(folder: Path, base: Path, store: Path) -> torch.Tensor:
    adopt(folder, base=str(base), name="theirs", store=store, origin=Origin(access="open"))
    return logits(attach(load_base(str(base), quantization="none", dtype="float32"), "theirs", store))


def settings(folder: Path, **values: Any) -> None:
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**content, **values}))


def rename(folder: Path, change: Callable[[str], str]) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({change(name): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)


def without_task(folder: Path) -> None:
    """PEFT writes auto_mapping itself when it saved without a task type."""
    assert json.loads((folder / CONFIG).read_text())["auto_mapping"]["base_model_class"] == "LlamaForCausalLM"


def unsloth(folder: Path) -> None:
    module = "transformers.models.llama.modeling_llama"
    settings(
        folder,
        auto_mapping={"base_model_class": "LlamaForCausalLM", "parent_library": module, "unsloth_fixed": True},
        target_modules="(?:.*?(?:language|text).*?(?:q_proj|down_proj))",
    )
    (folder / "README.md").write_text("---\nlibrary_name: peft\ntags: [unsloth]\n---\n")


def ms_swift(folder: Path) -> None:
    (folder / "additional_config.json").write_text(
        json.dumps({"lora_dtype": None, "lorap_lr_ratio": None, "lorap_emb_lr": 1e-06})
    )
    (folder / "args.json").write_text("{}")
    settings(folder, lora_dtype="float32", lorap_lr_ratio=16.0, lorap_emb_lr=1e-06)


def named_default(folder: Path) -> None:
    rename(folder, lambda name: name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."))


def compiled(folder: Path) -> None:
    rename(folder, lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."))


def fsdp_wrapped(folder: Path) -> None:
    rename(
        folder, lambda name: name.replace(".self_attn.", "._fsdp_wrapped_module._checkpoint_wrapped_module.self_attn.")
    )


def hostile_mapping(folder: Path) -> None:
    settings(folder, auto_mapping={"base_model_class": "system", "parent_library": "os"})


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "PEFT without a task type": without_task,
    "Unsloth": unsloth,
    "ms-swift": ms_swift,
    "tensors of the adapter `default`": named_default,
    "torch.compile": compiled,
    "FSDP with checkpointing": fsdp_wrapped,
    "classes that nothing imports": hostile_mapping,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_of_another_tool_is_adopted_with_the_same_logits(layout: str, llama: Path, tmp_path: Path) -> None:
    expected = trained(llama, tmp_path / "theirs", task=None if layout == "PEFT without a task type" else "CAUSAL_LM")
    LAYOUTS[layout](tmp_path / "theirs")
    assert torch.equal(adopted_logits(tmp_path / "theirs", llama, tmp_path / "store"), expected)


@pytest.mark.parametrize("dora", [True, False])
def test_magnitudes_named_default_are_adopted(dora: bool, llama: Path, tmp_path: Path) -> None:
    expected = trained(llama, tmp_path / "theirs", dora=dora)
    names = ("lora_A", "lora_B", "lora_magnitude_vector")

    def change(name: str) -> str:
        part = next(part for part in names if f".{part}" in name)
        return name.replace(f".{part}", f".{part}.default")

    rename(tmp_path / "theirs", change)
    assert torch.allclose(adopted_logits(tmp_path / "theirs", llama, tmp_path / "store"), expected, atol=2e-6)


def as_mlx(folder: Path, target: Path, *, dora: bool = False, **parameters: Any) -> None:
    """Write the adapter in `folder` as mlx-lm does: its own file names, settings, and transposed matrices."""
    target.mkdir()
    parts = {"lora_A.weight": "lora_a", "lora_B.weight": "lora_b", "lora_magnitude_vector": "m"}
    tensors = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        part = next(part for part in parts if name.endswith(part))
        layer = name.removeprefix("base_model.model.").removesuffix(f".{part}")
        tensors[f"{layer}.{parts[part]}"] = tensor.T.contiguous() if tensor.ndim == 2 else tensor
    save_file(tensors, target / "adapters.safetensors")
    save_file(tensors, target / "0000100_adapters.safetensors")
    content = {
        "model": "mlx-community/Llama-3.2-1B-Instruct-4bit",
        "train": True,
        "data": "data",
        "seed": 0,
        "iters": 100,
        "fine_tune_type": "dora" if dora else "lora",
        "num_layers": 16,
        "batch_size": 4,
        "optimizer": "adam",
        "grad_checkpoint": False,
        "resume_adapter_file": None,
        "lr_schedule": None,
        "mask_prompt": False,
        "lora_parameters": {"rank": 4, "dropout": 0.0, "scale": 2.0, **parameters},
    }
    (target / CONFIG).write_text(json.dumps(content))


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_of_mlx_lm_is_adopted_with_the_logits_of_peft(dora: bool, llama: Path, tmp_path: Path) -> None:
    """Alpha 8 at rank 4 is mlx-lm's scale of 2: it multiplies the product and is not divided by the rank."""
    expected = trained(llama, tmp_path / "peft", dora=dora)
    as_mlx(tmp_path / "peft", tmp_path / "mlx", dora=dora)
    assert torch.allclose(adopted_logits(tmp_path / "mlx", llama, tmp_path / "store"), expected, atol=2e-6)


def break_mlx(folder: Path, what: str) -> None:
    if what == "fused experts":
        tensors = load_file(folder / "adapters.safetensors")
        name = "model.layers.0.mlp.switch_mlp.gate_proj.lora_a"
        save_file({**tensors, name: torch.ones(4, 8, 2)}, folder / "adapters.safetensors")
    elif what == "full":
        settings(folder, fine_tune_type="full")
    else:
        settings(folder, lora_parameters={"an alpha": {"rank": 4, "scale": 2.0, "alpha": 16}}.get(what, {"rank": 4}))


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("full", SettingsError, "'full', not as LoRA"),
        ("an alpha", SettingsError, "alpha, which some versions"),
        ("no scale", IntegrityError, "scale None"),
        ("fused experts", IntegrityError, "not part of an update of a matrix"),
    ],
)
def test_an_adapter_of_mlx_lm_that_cannot_be_read_exactly_is_refused(
    what: str, kind: type[LoraMedError], message: str, llama: Path, tmp_path: Path
) -> None:
    trained(llama, tmp_path / "peft")
    as_mlx(tmp_path / "peft", tmp_path / "mlx")
    break_mlx(tmp_path / "mlx", what)
    with pytest.raises(kind, match=message):
        adopt(tmp_path / "mlx", base=str(llama), name="theirs", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
