"""Tiny random models of every family and one byte-level tokenizer, for all tests: made in milliseconds, no network.

The tokenizer has micro's special ids: pad 0, bos 1 (added by the tokenizer), eos 2 (ends plain text), im_start 3,
im_end 4 (ends a chat turn). The models are float32, width 64, so that 4-bit blocks of 64 fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ("<|pad|>", "<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "gpt2")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
)


def make_tokenizer(*, bos: bool = True, chat: bool = True, context: int = 256) -> Any:
    """A byte-level tokenizer: 5 special tokens and 256 bytes, so any text round-trips; `bos` adds BOS to plain text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
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
        model_max_length=context,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_config(family: str, *, layers: int = 2, context: int = 256, tie: bool | None = None) -> Any:
    """The configuration of a tiny model: width 64, 4 heads (2 for keys and values), 264 words."""
    import transformers

    common: dict[str, Any] = {"vocab_size": 264, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if tie is not None:
        common["tie_word_embeddings"] = tie
    if family == "gpt2":
        sizes = {"n_positions": context, "n_embd": 64, "n_layer": layers, "n_head": 4}
        quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return transformers.GPT2Config(**sizes, **quiet, **common)
    classes: dict[str, Any] = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "gemma": transformers.GemmaConfig,
        "phi3": transformers.Phi3Config,
    }
    extra = {"head_dim": 16} if family in ("gemma", "qwen3") else {}
    return classes[family](
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        **extra,
        **common,
    )


def make_model(family: str = "llama", *, seed: int = 0, **options: Any) -> Any:
    """A random model of the family in float32; `options` go to `make_config`."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(make_config(family, **options), dtype=torch.float32)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, 4], pad_token_id=0)
    return model.eval()


def make_tiny(
    family: str, folder: Path, *, seed: int = 0, bos: bool = True, chat: bool = True, shard: str = "1GB", **options: Any
) -> Path:
    """Write a tiny base (config, safetensors, tokenizer) into `folder` and return it.

    Another `seed` gives another base of equal shape; `shard="50KB"` splits the weights over files.
    """
    make_model(family, seed=seed, **options).save_pretrained(folder, max_shard_size=shard)
    make_tokenizer(bos=bos, chat=chat, context=options.get("context", 256)).save_pretrained(folder)
    return folder


def make_tagger(family: str, folder: Path, *, labels: int, seed: int = 0) -> Path:
    """Write a random token classifier with so many labels into `folder` and return it."""
    import torch
    from transformers import AutoModelForTokenClassification

    config = make_config(family)
    config.num_labels = labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForTokenClassification.from_config(config, dtype=torch.float32).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_tiny_encoder(folder: Path, *, seed: int = 0, context: int = 256) -> Path:
    """Write a tiny BERT that has learned to fill gaps only, with the same tokenizer, into `folder` and return it."""
    import torch
    from transformers import AutoModelForMaskedLM, BertConfig

    config = BertConfig(
        vocab_size=264,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=context,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForMaskedLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer = make_tokenizer(chat=False, context=context)
    tokenizer.eos_token = None  # an encoder's has none
    tokenizer.save_pretrained(folder)
    return folder
