"""What a GGUF file says of its model, as a configuration of transformers; what would be lost is refused by name.

transformers' loader reads the sizes and drops the rest without a word: the scaling of rotary positions, biases, the
width of a head (Qwen3), Gemma's score scale, GPT-2's context. Here each key of the architecture is handled or harmless;
any other key refuses the file. llama.cpp's loaders are the reference (src/models of llama.cpp).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from lora_med.errors import SettingsError
from lora_med.models.files.gguf_header import JOIN_PARTS, Header

ROTATION = "rope_freqs.weight"  # Llama 3's factors, a tensor of their own
OTHER_KINDS = {"adapter": "a LoRA adapter", "mmproj": "the vision part of a model", "imatrix": "an importance matrix"}
ORIGINAL = "use the model's original folder (config.json and safetensors) as model.base"
COMMON = {
    *("context_length", "block_count", "embedding_length", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count"),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.finetuned"),
}
GEMMA = {"attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "rope.freq_base_swa"}
# architecture -> the keys that are handled or change nothing
ARCHITECTURES: dict[str, set[str]] = {
    "llama": COMMON,
    "qwen2": COMMON,
    "qwen3": COMMON,
    "gemma3": COMMON | GEMMA,
    "gpt2": COMMON | {"attention.layer_norm_epsilon"},
}
LARGEST_GEMMA3 = 62  # layers of the 27B, whose scores llama.cpp scales by width / heads instead of the head's width
LLAMA3_FACTORS = (8.0, 32.0, 16.0, 4.0)  # 3.1, 3.2, and rarer ones


def check_kind(header: Header) -> None:
    """Refuse a GGUF file that is no complete dense language model of a known architecture.

    Raises:
        SettingsError: a part, an adapter, vision, experts, an unknown architecture or setting, each by its name.
    """
    where, values, name = str(header.file), header.values, header.architecture
    kind = values.get("general.type", "model")
    if kind != "model" or name == "clip":
        what = OTHER_KINDS.get("mmproj" if name == "clip" else str(kind), f"of the type {kind!r}")
        raise SettingsError(
            f"the GGUF file is {what}, not a base", where=where, fix="name the file of the model itself"
        )
    parts = values.get("split.count", 1)
    if parts not in (0, 1):
        raise SettingsError(
            f"the GGUF file is one of {parts} parts, which transformers cannot read",
            where=where,
            fix=JOIN_PARTS,
        )
    if header.own("expert_count", 0):
        raise SettingsError(
            f"the GGUF file is a mixture of {header.own('expert_count')} experts, which transformers' loader loses",
            where=where,
            fix=ORIGINAL,
        )
    if name not in ARCHITECTURES:
        raise SettingsError(
            f"GGUF files of architecture {name!r} are not read as a base; read are {', '.join(ARCHITECTURES)}",
            where=where,
            fix=ORIGINAL,
        )
    keys = {key.removeprefix(f"{name}.") for key in values if key.startswith(f"{name}.")}
    if unknown := sorted(keys - ARCHITECTURES[name] - {"expert_count", "expert_used_count"}):
        raise SettingsError(
            f"the GGUF file has settings that would be lost: {', '.join(f'{name}.{key}' for key in unknown[:5])}",
            where=where,
            fix=ORIGINAL,
        )
    _check_sizes(header)


def _check_sizes(header: Header) -> None:
    """Refuse sizes that are not one number, that are absent, or that no tensor has."""
    for key in ("context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count"):
        value = header.own(key)
        if type(value) is not int or not 0 < value < 1 << 31:
            raise SettingsError(
                f"{header.architecture}.{key} is {_short(value)}, not one positive number",
                where=str(header.file),
                fix=ORIGINAL,
            )
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    layers, width = header.own("block_count"), header.own("embedding_length")
    if len(blocks) != layers or shapes.get("token_embd.weight", (0, 0))[-1] != width:
        raise SettingsError(
            f"the GGUF file announces {layers} layers of width {width}; its tensors have {len(blocks)} layers and "
            f"embeddings of shape {shapes.get('token_embd.weight')}",
            where=str(header.file),
            fix="download or convert the model again",
        )
    key, value = header.own("attention.key_length"), header.own("attention.value_length")
    turned = header.own("rope.dimension_count")
    if key != value or (turned is not None and turned != head_width(header)):
        raise SettingsError(
            f"heads with keys of {key}, values of {value} and {turned} rotated dimensions are not supported",
            where=str(header.file),
            fix=ORIGINAL,
        )


def head_width(header: Header) -> int:
    """The width of an attention head."""
    return header.own("attention.key_length") or header.own("embedding_length") // header.own("attention.head_count")


def corrected(header: Header, config: Any, rotation: Any = None) -> Any:
    """transformers' configuration of the file with what its loader loses.

    Args:
        config: as transformers reads it from the file; it is changed.
        rotation: the values of the tensor `rope_freqs.weight`, if the file has one.

    Raises:
        SettingsError: a rotation that transformers cannot express.
    """
    name = header.architecture
    values: dict[str, Any] = {"vocab_size": _embedded_words(header)}
    if name != "gpt2":
        values |= {
            "head_dim": head_width(header),
            "rms_norm_eps": _plain(header.own("attention.layer_norm_rms_epsilon")),
        }
        values["rope_parameters"] = _rotation(header, rotation)
    values |= ADDITIONS[name](header)
    for key, value in values.items():
        setattr(config, key, value)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = ""
    return config


def _llama(header: Header) -> dict[str, Any]:
    return {"attention_bias": _has(header, "attn_q.bias"), "mlp_bias": _has(header, "ffn_up.bias")}


def _qwen3(header: Header) -> dict[str, Any]:
    return {"attention_bias": _has(header, "attn_q.bias")}


def _gemma3(header: Header) -> dict[str, Any]:
    width, heads = header.own("embedding_length"), header.own("attention.head_count")
    largest = header.own("block_count") == LARGEST_GEMMA3
    return {
        "query_pre_attn_scalar": width // heads if largest else head_width(header),
        "attn_logit_softcapping": header.own("attn_logit_softcapping"),
        "final_logit_softcapping": header.own("final_logit_softcapping"),
    }


def _gpt2(header: Header) -> dict[str, Any]:
    return {
        "n_positions": header.own("context_length"),
        "n_inner": header.own("feed_forward_length"),
        "layer_norm_epsilon": _plain(header.own("attention.layer_norm_epsilon")),
    }


def _nothing(header: Header) -> dict[str, Any]:
    return {}


ADDITIONS: dict[str, Callable[[Header], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _nothing,
    "qwen3": _qwen3,
    "gemma3": _gemma3,
    "gpt2": _gpt2,
}


def _has(header: Header, part: str) -> bool:
    return any(tensor.name == f"blk.0.{part}" for tensor in header.tensors)


def _embedded_words(header: Header) -> int:
    return next(tensor.shape[0] for tensor in header.tensors if tensor.name == "token_embd.weight")


def _rotation(header: Header, rotation: Any) -> dict[str, Any]:
    """The scaling of rotary positions in transformers' words."""
    theta = _plain(header.own("rope.freq_base", 10000.0))
    kind = header.own("rope.scaling.type", "none")
    scaled: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if kind in ("linear", "yarn"):
        scaled |= {"rope_type": kind, "factor": _plain(header.own("rope.scaling.factor", 1.0))}
        if kind == "yarn":
            original = header.own("rope.scaling.original_context_length", header.own("context_length"))
            scaled["original_max_position_embeddings"] = original
    elif kind != "none":
        raise SettingsError(
            f"positions scaled as {_short(kind)} are not supported", where=str(header.file), fix=ORIGINAL
        )
    if rotation is not None:
        if kind != "none":
            raise SettingsError("positions are scaled in two ways at once", where=str(header.file), fix=ORIGINAL)
        scaled = _llama3(header, theta, rotation)
    if header.architecture != "gemma3":
        return scaled
    near = _plain(header.own("rope.freq_base_swa", 10000.0))
    return {"full_attention": scaled, "sliding_attention": {"rope_type": "default", "rope_theta": near}}


def _llama3(header: Header, theta: float, rotation: Any) -> dict[str, Any]:
    """Llama 3's scaling, if one of its settings gives exactly the factors that the file has."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.configuration_llama import LlamaConfig

    width = head_width(header)
    plain = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width))
    for factor in LLAMA3_FACTORS:
        settings = {
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        trial = LlamaConfig(
            hidden_size=width,
            num_attention_heads=1,
            head_dim=width,
            max_position_embeddings=131072,
            rope_parameters=settings,
        )
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](trial, device=torch.device("cpu"))
        if rotation.shape == scaled.shape and torch.allclose(plain / scaled, rotation.float(), rtol=1e-4):
            return settings
    raise SettingsError(
        f"the factors in {ROTATION} are none of Llama 3's settings", where=str(header.file), fix=ORIGINAL
    )


def _plain(value: Any) -> float:
    """A float32 as the shortest number that rounds to it: 1e-06, not 9.999999974752427e-07."""
    exact = struct.pack("<f", float(value))
    return next(
        short for digits in range(1, 18) if struct.pack("<f", short := float(f"{float(value):.{digits}g}")) == exact
    )


def _short(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:40]
