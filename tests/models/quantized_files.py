"""Tiny bases quantized on disk in each format, packed number by number from the formats' descriptions.

Every maker returns the values that the files stand for, computed from the integers before they are packed. Nothing here
uses the code under test: bits are placed one by one, in Python's own integers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
GROUP = 32
Parts = tuple[dict[str, torch.Tensor], torch.Tensor]


def words(row: list[int], bits: int) -> list[int]:
    """The row's integers as one long number, lowest first, cut into signed 32-bit words."""
    number = sum(value << (index * bits) for index, value in enumerate(row))
    cut = [(number >> (32 * index)) & 0xFFFFFFFF for index in range(-(-len(row) * bits // 32))]
    return [word - (1 << 32) if word >> 31 else word for word in cut]


def packed(rows: np.ndarray, bits: int) -> torch.Tensor:
    """Each row packed into words."""
    return torch.tensor([words([int(value) for value in row], bits) for row in rows], dtype=torch.int32)


def groups_of(weight: torch.Tensor, bits: int, *, symmetric: bool, group: int = GROUP) -> tuple[Any, Any, Any]:
    """Codes (rows, inputs), zero points and scales (rows, groups) by rounding to the nearest."""
    parts = weight.float().view(len(weight), -1, group)
    most = (1 << bits) - 1
    if symmetric:
        scale = parts.abs().amax(-1) / max(1, (most - 1) / 2)
        zero = torch.full_like(scale, (most + 1) // 2)
    else:
        scale = (parts.amax(-1).clamp(min=0) - parts.amin(-1).clamp(max=0)) / most
        zero = (-parts.amin(-1).clamp(max=0) / scale).round().clamp(0, most)
    scale = scale.half().float()
    codes = ((parts / scale[..., None]).round() + zero[..., None]).clamp(0, most)
    return codes.view(len(weight), -1), zero, scale


def gptq_parts(weight: torch.Tensor, bits: int, *, older: bool = True, shuffled: bool = False) -> Parts:
    inputs = weight.shape[1]
    order = torch.randperm(inputs, generator=torch.Generator().manual_seed(1)) if shuffled else torch.arange(inputs)
    codes, zero, scale = groups_of(weight[:, order], bits, symmetric=False)
    g_idx = torch.empty(inputs, dtype=torch.int32)
    g_idx[order] = torch.arange(inputs, dtype=torch.int32) // GROUP
    codes = codes[:, order.argsort()]
    values = (codes - zero[:, g_idx.long()]) * scale[:, g_idx.long()]
    stored_zero = (zero - 1) % (1 << bits) if older else zero
    return {
        "qweight": packed(codes.numpy(), bits).T.contiguous(),
        "qzeros": packed(stored_zero.T.numpy(), bits),
        "scales": scale.T.half().contiguous(),
        "g_idx": g_idx,
    }, values


def awq_parts(weight: torch.Tensor) -> Parts:
    codes, zero, scale = groups_of(weight, 4, symmetric=False)

    def in_order(rows: torch.Tensor) -> torch.Tensor:
        eights = rows.T.reshape(rows.shape[1], -1, 8)[:, :, list(AWQ_ORDER)]
        return packed(eights.reshape(rows.shape[1], -1).numpy(), 4)

    values = (codes - zero.repeat_interleave(GROUP, 1)) * scale.repeat_interleave(GROUP, 1)
    return {"qweight": in_order(codes), "qzeros": in_order(zero), "scales": scale.T.half().contiguous()}, values


def int4_parts(weight: torch.Tensor, *, symmetric: bool) -> Parts:
    codes, zero, scale = groups_of(weight, 4, symmetric=symmetric)
    parts = {
        "weight_packed": packed(codes.numpy(), 4),
        "weight_scale": scale.half(),
        "weight_shape": torch.tensor(list(weight.shape)),
    }
    if not symmetric:
        parts["weight_zero_point"] = packed(zero.T.numpy(), 4).T.contiguous()
    return parts, (codes - zero.repeat_interleave(GROUP, 1)) * scale.repeat_interleave(GROUP, 1)


def int8_parts(weight: torch.Tensor) -> Parts:
    scale = (weight.float().abs().amax(1, keepdim=True) / 127).bfloat16()
    codes = (weight.float() / scale.float()).round().clamp(-128, 127)
    return {"weight": codes.to(torch.int8), "weight_scale": scale}, codes * scale.float()


def fp8_rows(weight: torch.Tensor) -> Parts:
    scale = weight.float().abs().amax(1, keepdim=True) / 448
    codes = (weight.float() / scale).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale


def fp8_blocks(weight: torch.Tensor, edge: int = 48) -> Parts:
    """Blocks that do not divide the weight: the last of a row and of a column are smaller."""
    rows, columns = weight.shape
    scale = torch.zeros(-(-rows // edge), -(-columns // edge))
    codes, values = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
    for row in range(scale.shape[0]):
        for column in range(scale.shape[1]):
            where = (slice(row * edge, (row + 1) * edge), slice(column * edge, (column + 1) * edge))
            scale[row, column] = weight[where].abs().max() / 448
            codes[where] = (weight[where] / scale[row, column]).to(torch.float8_e4m3fn)
            values[where] = codes[where].float() * scale[row, column]
    return {"weight": codes, "weight_scale_inv": scale}, values


def fp4_codes(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest E2M1 codes and their values."""
    table = torch.tensor([*FP4_VALUES, *(-value for value in FP4_VALUES)])
    codes = (numbers[..., None] - table).abs().argmin(-1)
    return codes, table[codes]


def mx_parts(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bytes, exponents and values of MXFP4 along the last axis."""
    groups = weight.float().unflatten(-1, (-1, 32))
    exponents = torch.floor(torch.log2(groups.abs().amax(-1))) - 2
    codes, values = fp4_codes(groups / torch.exp2(exponents)[..., None])
    values = values * torch.exp2(exponents)[..., None]
    pairs = codes.unflatten(-1, (-1, 2))
    return (pairs[..., 0] + 16 * pairs[..., 1]).to(torch.uint8), (exponents + 127).to(torch.uint8), values.flatten(-2)


def nvfp4_parts(weight: torch.Tensor) -> Parts:
    groups = weight.float().view(len(weight), -1, 16)
    overall = torch.tensor([448 * 6 / float(weight.abs().max())])
    scale = (groups.abs().amax(-1) / 6 * overall).to(torch.float8_e4m3fn)
    spread = (scale.float() / overall)[..., None]
    codes, values = fp4_codes(groups / spread)
    pairs = codes.view(len(weight), -1, 2)
    stored = (pairs[..., 0] + 16 * pairs[..., 1]).to(torch.uint8)
    parts = {"weight_packed": stored, "weight_scale": scale, "weight_global_scale": overall}
    return parts, (values * spread).view(weight.shape)


def mxfp4_parts(weight: torch.Tensor) -> Parts:
    stored, exponents, values = mx_parts(weight)
    return {"weight_packed": stored.flatten(-2), "weight_scale": exponents}, values


def compressed(form: str, bits: int, kind: str, **more: Any) -> dict[str, Any]:
    """The quantization_config of compressed-tensors for all linear layers but the head."""
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "dynamic": False, **more}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    settings = {"quant_method": "compressed-tensors", "format": form, "config_groups": groups}
    return {**settings, "ignore": ["lm_head"], "quantization_status": "compressed"}


GROUPED = {"strategy": "group", "group_size": GROUP}
GPTQ = {"quant_method": "gptq", "group_size": GROUP, "desc_act": False, "sym": False}
KINDS: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], Parts]]] = {
    "gptq": ({**GPTQ, "bits": 4}, lambda w: gptq_parts(w, 4)),
    "gptq_2bit": ({**GPTQ, "bits": 2}, lambda w: gptq_parts(w, 2)),
    "gptq_3bit": ({**GPTQ, "bits": 3}, lambda w: gptq_parts(w, 3)),
    "gptq_8bit": ({**GPTQ, "bits": 8}, lambda w: gptq_parts(w, 8)),
    "gptq_v2_by_activation": (
        {**GPTQ, "bits": 4, "desc_act": True, "checkpoint_format": "gptq_v2"},
        lambda w: gptq_parts(w, 4, older=False, shuffled=True),
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True},
        awq_parts,
    ),
    "fp8": ({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [48, 48]}, fp8_blocks),
    "fbgemm_fp8": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, fp8_rows),
    "compressed_int4": (compressed("pack-quantized", 4, "int", **GROUPED), lambda w: int4_parts(w, symmetric=True)),
    "compressed_int4_zeros": (
        compressed("pack-quantized", 4, "int", **{**GROUPED, "symmetric": False}),
        lambda w: int4_parts(w, symmetric=False),
    ),
    "compressed_int8": (compressed("int-quantized", 8, "int", strategy="channel"), int8_parts),
    "compressed_fp8": (compressed("float-quantized", 8, "float", strategy="channel"), fp8_rows),
    "compressed_nvfp4": (
        compressed("nvfp4-pack-quantized", 4, "float", strategy="tensor_group", group_size=16),
        nvfp4_parts,
    ),
    "compressed_mxfp4": (
        compressed("mxfp4-pack-quantized", 4, "float", strategy="group", group_size=32),
        mxfp4_parts,
    ),
}


def quantize_on_disk(original: Path, out: Path, kind: str) -> dict[str, torch.Tensor]:
    """Write the base in `original` to `out` with its linear layers quantized; returns the values they stand for."""
    from safetensors.torch import load_file, save_file

    settings, make = KINDS[kind]
    shutil.copytree(original, out)
    stored, values = {}, {}
    for name, tensor in load_file(original / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            stored[name] = tensor
            continue
        parts, values[name] = make(tensor)
        stored |= {f"{name.removesuffix('weight')}{part}": value.contiguous() for part, value in parts.items()}
    save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
    set_quantization(out, settings)
    return values


def make_gpt_oss(out: Path, *, quantized: bool = True) -> dict[str, torch.Tensor]:
    """Write a tiny GPT-OSS with its experts in MXFP4, or in full; returns the values of the experts' weights."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, GptOssConfig

    from tests.tiny import make_tokenizer

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16, "vocab_size": 264}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GptOssConfig(**sizes, **heads, **ends, max_position_embeddings=131072)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(out)
    make_tokenizer().save_pretrained(out)
    stored, values = {}, {}
    for name, tensor in load_file(out / "model.safetensors").items():
        if not name.endswith(("gate_up_proj", "down_proj")) or not quantized:
            stored[name] = tensor
            continue
        stored[f"{name}_blocks"], stored[f"{name}_scales"], exact = mx_parts(tensor.transpose(1, 2))
        values[name] = exact.transpose(1, 2)
    save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
    set_quantization(out, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]} if quantized else None)
    return values


def quantize_with_bitsandbytes(original: Path, out: Path, dtype: str = "float32", **settings: Any) -> Path:
    """Write what transformers saves of the base in `original` after it was quantized by bitsandbytes on loading."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    model = AutoModelForCausalLM.from_pretrained(
        original, quantization_config=BitsAndBytesConfig(**settings), dtype=getattr(torch, dtype)
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(original).save_pretrained(out)
    return out


def set_quantization(folder: Path, settings: dict[str, Any] | None) -> None:
    """Write the settings into config.json, or take them out."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("quantization_config", None)
    if settings is not None:
        config["quantization_config"] = settings
    path.write_text(json.dumps(config))
