"""Random models of real shapes or a small real one, and PubMedQA's prompts and answers as rows of tokens, to time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

END = "<|endoftext|>"
# SmolLM2-135M's shape, one of half a billion weights, and a tiny one to try a script with; the vocabulary is GPT-2's.
REAL = "smollm2"  # SmolLM2-135M-Instruct itself, of `lora-med base get smollm2`
SHAPES: dict[str, dict[str, int]] = {
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "0.5b": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    },
    "tiny": {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
}


def make_tokenizer(data: Path) -> Any:
    """GPT-2's tokenizer, from the files beside the data sets."""
    from transformers import PreTrainedTokenizerFast

    file = data / "models" / "gpt2_lora_adapter" / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token=END, eos_token=END, bos_token=END)


def make_model(shape: str, data: Path, folder: Path) -> Path:
    """A Llama of this shape with random bfloat16 weights, and its tokenizer, in `folder`; for REAL, links to it."""
    if shape == REAL:
        from lora_med.models.files.resolve import resolve_base

        folder.mkdir(parents=True, exist_ok=True)
        for file in resolve_base(REAL)[0].iterdir():
            (folder / file.name).symlink_to(file)
        return folder

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(data)
    end = tokenizer.eos_token_id
    config = LlamaConfig(
        vocab_size=50304,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        **SHAPES[shape],
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_pairs(data: Path) -> list[dict[str, str]]:
    """PubMedQA's questions: abstract and question as the prompt; decision and long answer as the completion."""
    items = json.loads((data / "pubmedqa" / "ori_pqal_nontest500.json").read_text(encoding="utf-8"))
    return [
        {
            "prompt": "Abstract: {}\nQuestion: {}\nAnswer:".format("\n".join(item["CONTEXTS"]), item["QUESTION"]),
            "completion": f" {item['final_decision']}. {item['LONG_ANSWER']}",
        }
        for item in items.values()
    ]


def make_rows(data: Path, count: int, folder: Path | None = None) -> list[dict[str, list[Any]]]:
    """The first of these questions as tokens, GPT-2's or those of the model in `folder`; the completion is trained."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder) if folder else make_tokenizer(data)
    rows = []
    for pair in make_pairs(data)[:count]:
        prompt = tokenizer(pair["prompt"])["input_ids"]
        answer = tokenizer(pair["completion"])["input_ids"] + [tokenizer.eos_token_id]
        rows.append({"input_ids": prompt + answer, "trained": [False] * len(prompt) + [True] * len(answer)})
    return rows
