"""GGUF files written by hand, byte by byte from the format's specification, from tiny models of this folder."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

TEXT, LIST = 8, 9
F32, F16, Q8_0 = 0, 1, 8
LLAMA_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def number(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    return (4, struct.pack("<I", value)) if isinstance(value, int) else (6, struct.pack("<f", value))


def typed(value: Any) -> bytes:
    """A metadata value after its type."""
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + text(value)
    if isinstance(value, list):
        kind = TEXT if isinstance(value[0], str) else 5 if isinstance(value[0], int) else 6  # 5 is a signed integer
        items = b"".join(
            text(item) if kind == TEXT else struct.pack("<i" if kind == 5 else "<f", item) for item in value
        )
        return struct.pack("<IIQ", LIST, kind, len(value)) + items
    kind, content = number(value)
    return struct.pack("<I", kind) + content


def write_gguf(
    path: Path, values: Mapping[str, Any], tensors: Sequence[tuple[str, tuple[int, ...], int, bytes]] = ()
) -> Path:
    """Write a GGUF of version 3; a tensor is name, shape as torch has it, ggml's type number, bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(text(key) + typed(value) for key, value in values.items())
    data = b""
    for name, shape, kind, content in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += struct.pack("<IQ", kind, len(data))
        data += content + b"\0" * (-len(content) % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return path


def q8_0(values: numpy.ndarray) -> tuple[bytes, numpy.ndarray]:
    """Blocks of 32 in 8 bits with a 16-bit scale, and the values that they mean, by the definition of Q8_0."""
    blocks = values.reshape(-1, 32).astype(numpy.float32)
    scales = (numpy.abs(blocks).max(1, keepdims=True) / 127).astype(numpy.float16)
    scales[scales == 0] = 1
    codes = numpy.round(blocks / scales.astype(numpy.float32)).astype(numpy.int8)
    content = b"".join(scale.tobytes() + code.tobytes() for scale, code in zip(scales, codes, strict=True))
    return content, (codes.astype(numpy.float32) * scales.astype(numpy.float32)).reshape(values.shape)


def interleaved(matrix: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of a query or key matrix in llama.cpp's order: the two halves of each head's rotation alternate."""
    half = matrix.shape[0] // heads // 2
    return matrix.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(matrix.shape)


def llama_values(words: Sequence[str], **changed: Any) -> dict[str, Any]:
    """The metadata of the tiny llama of `tests.tiny` with a byte-level tokenizer; None removes a key."""
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "Tiny Clinic",
        "general.license": "apache-2.0",
        "llama.block_count": 2,
        "llama.context_length": 256,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": 16,
        "llama.vocab_size": len(words),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": list(words),
        "tokenizer.ggml.token_type": [3] * 5 + [1] * (len(words) - 5),
        "tokenizer.ggml.merges": ["1 2", "Ġ t"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 4,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }
    return {key: value for key, value in (values | changed).items() if value is not None}


def llama_words() -> list[str]:
    """The 5 special tokens of `tests.tiny`, 256 bytes, two merges, and one filler: 264 words."""
    from tokenizers import pre_tokenizers

    from tests.tiny import SPECIAL

    return [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "Ġt", "filler"]


def llama_tensors(model: Any, kind: int = F32) -> tuple[list[tuple[str, tuple[int, ...], int, bytes]], dict[str, Any]]:
    """The tensors of a tiny llama under llama.cpp's names, and the values that they mean under transformers' names."""
    tensors, meant = [], {}
    for name, weight in model.state_dict().items():
        values = weight.numpy()
        parts = name.removesuffix(".weight").split(".")
        if parts[0] == "lm_head" or parts[1] in ("embed_tokens", "norm"):
            short = {"lm_head": "output", "embed_tokens": "token_embd", "norm": "output_norm"}[parts[-1]]
        else:
            short = f"blk.{parts[2]}.{LLAMA_NAMES['.'.join(parts[3:])]}"
        heads = {"q_proj": 4, "k_proj": 2}.get(parts[-1])
        stored = kind if values.ndim > 1 else F32
        ordered = values if heads is None else interleaved(values, heads)
        if stored == Q8_0:
            content, _ = q8_0(ordered)
            meant[name] = q8_0(values)[1]
        else:
            content = ordered.astype(numpy.float16 if stored == F16 else numpy.float32).tobytes()
            meant[name] = values.astype(numpy.float16 if stored == F16 else numpy.float32).astype(numpy.float32)
        tensors.append((f"{short}.weight", values.shape, stored, content))
    return tensors, meant


def tiny_gguf(path: Path, *, kind: int = F32, **changed: Any) -> tuple[Path, dict[str, Any]]:
    """A whole tiny llama as GGUF, and the values that it means."""
    from tests.tiny import make_model

    tensors, meant = llama_tensors(make_model("llama"), kind)
    return write_gguf(path, llama_values(llama_words(), **changed), tensors), meant
