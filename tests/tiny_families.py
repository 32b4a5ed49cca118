"""Tiny random models of the families that people bring, beyond the seven of tests/tiny.py; made without a network.

Each has the real structure of its family: experts, routers, state spaces, a vision tower. Width 64, two layers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny import FAMILIES, make_config, make_tokenizer

WORDS: dict[str, Any] = {"vocab_size": 264, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FULL = {**LLAMA, "num_key_value_heads": 4}
WIDE = {**LLAMA, "head_dim": 16}
SLIDING = {**WIDE, "sliding_window": 16}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
QUIET = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SIGLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
PATCHES = {"image_size": 28, "patch_size": 14}
FOUR = {"num_experts": 4, "num_experts_per_tok": 2}
GEMMA2 = {**SLIDING, "query_pre_attn_scalar": 16}
MLA = {
    **FULL,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "moe_intermediate_size": 64,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
DELTA_NET = {
    **WIDE,
    **FOUR,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
QWEN_VISION = {"depth": 1, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 1}
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}

# Family -> the class of its configuration in transformers, and its sizes.
TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon": ("FalconConfig", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "falcon_alibi": (
        "FalconConfig",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "multi_query": False,
            "alibi": True,
            "parallel_attn": False,
        },
    ),
    "opt": (
        "OPTConfig",
        {
            "hidden_size": 64,
            "ffn_dim": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 64,
            "dropout": 0.0,
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}),
    "gptj": ("GPTJConfig", {**GPT, **QUIET, "rotary_dim": 8}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 256,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
            "resid_dropout": 0.0,
            "embed_dropout": 0.0,
            "attention_dropout": 0.0,
        },
    ),
    "gpt_bigcode": ("GPTBigCodeConfig", {**GPT, **QUIET}),
    "bloom": ("BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "biogpt": (
        "BioGptConfig",
        {
            **{key: value for key, value in LLAMA.items() if key != "num_key_value_heads"},
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    ),
    "phi": ("PhiConfig", {**FULL, "partial_rotary_factor": 0.5}),
    "stablelm": ("StableLmConfig", LLAMA),
    "starcoder2": ("Starcoder2Config", {**LLAMA, "residual_dropout": 0.0, "embedding_dropout": 0.0}),
    "gemma2": ("Gemma2Config", GEMMA2),
    "gemma3_text": ("Gemma3TextConfig", GEMMA2),
    "cohere": ("CohereConfig", {**LLAMA, "logit_scale": 0.0625}),
    "cohere2": ("Cohere2Config", {**SLIDING, "logit_scale": 0.0625}),
    "granite": (
        "GraniteConfig",
        {
            **LLAMA,
            "logits_scaling": 8.0,
            "residual_multiplier": 0.22,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.0156,
        },
    ),
    "olmo2": ("Olmo2Config", LLAMA),
    "olmo3": ("Olmo3Config", {**LLAMA, "sliding_window": 16}),
    "glm4": ("Glm4Config", WIDE),
    "smollm3": ("SmolLM3Config", LLAMA),
    "ministral": ("MinistralConfig", SLIDING),
    "mixtral": ("MixtralConfig", {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**LLAMA, **FOUR, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", {**WIDE, **FOUR, "moe_intermediate_size": 64}),
    "qwen3_next": ("Qwen3NextConfig", DELTA_NET),
    "olmoe": ("OlmoeConfig", {**LLAMA, **FOUR}),
    "gpt_oss": ("GptOssConfig", {**SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v2": ("DeepseekV2Config", MLA),
    "deepseek_v3": ("DeepseekV3Config", MLA),
    "llama4_text": (
        "Llama4TextConfig",
        {
            **WIDE,
            "intermediate_size_mlp": 128,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 64,
        },
    ),
    "granitemoe": ("GraniteMoeConfig", {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "mamba": ("MambaConfig", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}),
    "mamba2": (
        "Mamba2Config",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 1,
            "chunk_size": 16,
        },
    ),
    "falcon_h1": (
        "FalconH1Config",
        {
            **LLAMA,
            "mamba_d_ssm": 64,
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 16,
            "lm_head_multiplier": 0.5,
        },
    ),
    "lfm2": ("Lfm2Config", {**LLAMA, "layer_types": ["conv", "full_attention"]}),
}


def _gemma3(transformers: Any) -> Any:
    """MedGemma's class."""
    return transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**GEMMA2, **WORDS),
        vision_config=transformers.SiglipVisionConfig(**SIGLIP, **PATCHES),
        mm_tokens_per_image=1,
        image_token_index=262,
        boi_token_index=260,
        eoi_token_index=261,
    )


def _qwen2_5_vl(transformers: Any) -> Any:
    text = {**LLAMA, **WORDS, "rope_parameters": MROPE}
    vision = {**QWEN_VISION, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
    vision |= {"fullatt_block_indexes": [0], "window_size": 56}
    return transformers.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=262, video_token_id=263, vision_start_token_id=260
    )


def _qwen3_vl(transformers: Any) -> Any:
    text = {**WIDE, **WORDS, "rope_parameters": MROPE}
    vision = {**QWEN_VISION, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return transformers.Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=262, video_token_id=263, vision_start_token_id=260
    )


def _llava(transformers: Any) -> Any:
    return transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**LLAMA, **WORDS),
        vision_config=transformers.CLIPVisionConfig(**SIGLIP, **PATCHES, projection_dim=32),
        image_token_index=262,
    )


def _mistral3(transformers: Any) -> Any:
    return transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**LLAMA, **WORDS),
        vision_config=transformers.PixtralVisionConfig(**{**SIGLIP, "head_dim": 16}, **PATCHES),
        image_token_index=262,
    )


def _mllama(transformers: Any) -> Any:
    """Llama 3.2 Vision's class, one layer of which attends to an image."""
    text = {**LLAMA, **WORDS, "cross_attention_layers": [1]}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    vision = {**PATCHES, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_global_layers": 1}
    vision |= {"attention_heads": 2, "vision_output_dim": 64, "intermediate_layers_indices": [0]}
    return transformers.MllamaConfig(text_config=text, vision_config=vision, image_token_index=262)


MULTIMODAL: dict[str, Callable[[Any], Any]] = {
    "gemma3": _gemma3,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava": _llava,
    "mistral3": _mistral3,
    "mllama": _mllama,
}
# Families with routed experts, which share a parameter in each layer; in gpt_oss its matrices are (inputs, outputs).
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "olmoe", "gpt_oss", "deepseek_v2", "deepseek_v3")
EXPERTS += ("llama4_text", "granitemoe")
ALL = (*FAMILIES, *TEXT, *MULTIMODAL)
CLASSES = {
    "gemma3": "Gemma3ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "mllama": "MllamaForConditionalGeneration",
}


def family_config(family: str, **changed: Any) -> Any:
    """The configuration of a tiny model of the family, with some sizes of a text family changed."""
    import transformers

    if family in FAMILIES:
        return make_config(family)
    if family in MULTIMODAL:
        return MULTIMODAL[family](transformers)
    kind, sizes = TEXT[family]
    return getattr(transformers, kind)(**{**sizes, **WORDS, **changed})


def make_family(
    family: str, folder: Path, *, seed: int = 0, tokenizer: Any = None, loud: bool = False, **changed: Any
) -> Path:
    """Write a tiny random base of the family into `folder` and return it; sizes of a text family may be changed.

    Args:
        tokenizer: another one than the byte-level tokenizer.
        loud: make the weights large enough that every part of the model is heard in the logits.
    """
    import torch
    import transformers

    config = family_config(family, **changed)
    kind: Any = getattr(transformers, CLASSES[family]) if family in CLASSES else transformers.AutoModelForCausalLM
    make = kind._from_config if family in CLASSES else kind.from_config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(config, dtype=torch.float32)
        for name, weight in model.named_parameters() if loud else ():
            is_norm = "norm" in name or "ln_" in name or weight.ndim == 1
            weight.data = weight.data + 0.1 * torch.randn_like(weight) if is_norm else weight.data * 4
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=[2, 4], pad_token_id=0)
    model.save_pretrained(folder)
    (tokenizer or make_tokenizer()).save_pretrained(folder)
    return folder
