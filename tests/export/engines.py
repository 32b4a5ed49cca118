"""Tiny bases that llama.cpp takes: random weights of each family, and a BPE tokenizer with merges of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lora_med.merge.proof.logits import PROBES
from tests.tiny import CHAT_TEMPLATE, SPECIAL

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
FAMILIES = ("llama", "qwen3", "gpt2", "gemma3")


def merging_tokenizer(*, pattern: str | None = LLAMA3, bos: bool = True, chat: bool = True, words: int = 512) -> Any:
    """A byte-level BPE of at most `words` trained on the probes; cut by `pattern`, or by GPT-2's rule with None."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    inner.pre_tokenizer = pre_tokenizers.Sequence([*split, whole])
    inner.decoder = decoders.ByteLevel()
    numbers = ["12 123 1234 120/80 3.5 33 333 it's IT'S you've   two\n\n\n  three\r\n"] * 8
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*PROBES, *numbers], trainer)
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{SPECIAL[1]} $A", pair=f"{SPECIAL[1]} $A {SPECIAL[1]} $B", special_tokens=[(SPECIAL[1], 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        additional_special_tokens=list(SPECIAL[3:]),
        model_max_length=256,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def engine_config(family: str, words: int) -> Any:
    """Sizes that llama.cpp's kernels and 32-wide blocks fit; every rotation away from its default."""
    import transformers

    ids: dict[str, Any] = {"vocab_size": words, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "gpt2":
        quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return transformers.GPT2Config(n_positions=256, n_embd=64, n_layer=2, n_head=4, **quiet, **ids)
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 256,
    }
    if family == "gemma3":
        # llama.cpp takes every sixth layer as the one that sees all, whatever the settings say.
        deep = {**shape, "num_hidden_layers": 6}
        return transformers.Gemma3TextConfig(query_pre_attn_scalar=32, sliding_window=16, **deep, **ids)
    turned = {"rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}
    classes: dict[str, Any] = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config}
    return classes[family](**shape, **turned, **ids)


def make_engine_base(family: str, folder: Path, *, tokenizer: Any = None, seed: int = 0) -> Path:
    """Write a tiny base of the family, its weights large enough that every part of it is heard in the logits."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokenizer = tokenizer or merging_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(engine_config(family, len(tokenizer)), dtype=torch.float32)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(weight + 0.1 * torch.randn_like(weight) if "norm" in name or "ln_" in name else weight * 4)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, 4], pad_token_id=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
